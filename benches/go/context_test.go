// Package bench measures Go's context package, the model of ours, on the operations of docs/performance.md.
package bench

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

func BenchmarkP1Child(b *testing.B) {
	root, stop := context.WithCancel(context.Background())
	defer stop()
	b.ReportAllocs()
	for b.Loop() {
		_, cancel := context.WithCancel(root)
		cancel()
	}
}

func BenchmarkP2IsDone(b *testing.B) {
	root, stop := context.WithCancel(context.Background())
	defer stop()
	ctx, cancel := context.WithCancel(root)
	defer cancel()
	for b.Loop() {
		if ctx.Err() != nil {
			b.Fatal("done")
		}
	}
}

func BenchmarkP4Cancel(b *testing.B) {
	for _, children := range []int{1, 100, 10_000, 100_000} {
		b.Run(fmt.Sprint(children), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				root, cancel := context.WithCancel(context.Background())
				stops := make([]context.CancelFunc, children)
				for i := range stops {
					var ctx context.Context
					ctx, stops[i] = context.WithCancel(root)
					_ = ctx.Done()
				}
				b.StartTimer()
				cancel()
				b.StopTimer()
				for _, stop := range stops {
					stop()
				}
				b.StartTimer()
			}
		})
	}
}

func BenchmarkP5TwoThreads(b *testing.B) {
	root, stop := context.WithCancel(context.Background())
	defer stop()
	b.SetParallelism(1)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			_, cancel := context.WithCancel(root)
			cancel()
		}
	})
}

func BenchmarkP7Wake10k(b *testing.B) {
	const tasks = 10_000
	for b.Loop() {
		b.StopTimer()
		root, cancel := context.WithCancel(context.Background())
		var ready, gone sync.WaitGroup
		ready.Add(tasks)
		gone.Add(tasks)
		for range tasks {
			go func() { ready.Done(); <-root.Done(); gone.Done() }()
		}
		ready.Wait()
		b.StartTimer()
		cancel()
		gone.Wait()
	}
}

func BenchmarkP8Timeout(b *testing.B) {
	root, stop := context.WithCancel(context.Background())
	defer stop()
	b.ReportAllocs()
	for b.Loop() {
		_, cancel := context.WithTimeout(root, time.Second)
		cancel()
	}
}

type key int

func BenchmarkP11WithValue(b *testing.B) {
	for _, depth := range []int{1, 4, 16} {
		b.Run(fmt.Sprint(depth), func(b *testing.B) {
			ctx := context.Background()
			for i := range depth {
				ctx = context.WithValue(ctx, key(i), i)
			}
			b.ReportAllocs()
			for b.Loop() {
				_ = context.WithValue(ctx, key(100), 1)
			}
		})
	}
}

func BenchmarkP12Value(b *testing.B) {
	for _, depth := range []int{1, 4, 16, 50} {
		b.Run(fmt.Sprint(depth), func(b *testing.B) {
			ctx := context.Background()
			for i := range depth {
				ctx = context.WithValue(ctx, key(i), i)
			}
			for b.Loop() {
				_ = ctx.Value(key(0))
			}
		})
	}
}
