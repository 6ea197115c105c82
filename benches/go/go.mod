module throughline/benches/go

go 1.24
