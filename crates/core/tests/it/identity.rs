//! Trace and span ids.

use std::collections::HashSet;

use throughline_core::{SpanId, TraceFlags, TraceId};

#[test]
fn t08_ids_are_never_zero_and_never_repeat_across_threads() {
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(|| (0..20_000).map(|_| (TraceId::random(), SpanId::random())).collect::<Vec<_>>()))
        .collect();
    let ids: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let traces: HashSet<_> = ids.iter().map(|(trace, _)| trace).collect();
    let spans: HashSet<_> = ids.iter().map(|(_, span)| span).collect();
    assert_eq!((traces.len(), spans.len()), (80_000, 80_000));
    assert_eq!((TraceId::from_bytes([0; 16]), SpanId::from_bytes([0; 8])), (None, None));
}

#[test]
fn t08_every_bit_of_an_id_is_random() {
    // 2,000 tosses of a fair coin have fewer than 800 or more than 1,200 heads less than once in
    // 10^18 runs.
    let ids: Vec<_> = (0..2_000).map(|_| (TraceId::random(), SpanId::random())).collect();
    for bit in 0..128 {
        let ones = ids.iter().filter(|(trace, _)| u128::from_be_bytes(trace.to_bytes()) >> bit & 1 == 1).count();
        assert!((800..=1_200).contains(&ones), "trace id bit {bit}: {ones} of 2,000");
    }
    for bit in 0..64 {
        let ones = ids.iter().filter(|(_, span)| u64::from_be_bytes(span.to_bytes()) >> bit & 1 == 1).count();
        assert!((800..=1_200).contains(&ones), "span id bit {bit}: {ones} of 2,000");
    }
}

#[test]
fn t08_ids_parse_and_print_lower_case_hex_only() {
    for _ in 0..1_000 {
        let (trace, span) = (TraceId::random(), SpanId::random());
        assert_eq!(trace.to_string().parse(), Ok(trace));
        assert_eq!(span.to_string().parse(), Ok(span));
        assert_eq!(TraceId::from_bytes(trace.to_bytes()), Some(trace));
        assert_eq!(SpanId::from_hex(&span.to_hex()), Some(span));
    }
    for bad in [
        "",
        "0000000000000000",
        "00f067aa0ba902b",
        "00f067aa0ba902b70",
        "00F067aa0ba902b7",
        "00f067aa0ba902bg",
        "00f067aa0ba902b/",
        "00f067aa0ba902b:",
        "00f067aa0ba902\u{e9}",
        "+0f067aa0ba902b7",
    ] {
        assert!(bad.parse::<SpanId>().is_err(), "{bad:?}");
        let twice = format!("{bad}{bad}");
        assert!(twice.parse::<TraceId>().is_err(), "{twice:?}");
    }
}

#[test]
fn t08_ids_convert_from_and_to_integers_most_significant_byte_first() {
    for _ in 0..1_000 {
        let (trace, span) = (TraceId::random(), SpanId::random());
        assert_eq!(trace.to_u128().to_be_bytes(), trace.to_bytes());
        assert_eq!(span.to_u64().to_be_bytes(), span.to_bytes());
        assert_eq!((TraceId::from_u128(trace.to_u128()), SpanId::from_u64(span.to_u64())), (Some(trace), Some(span)));
    }
    assert_eq!((TraceId::from_u128(0), SpanId::from_u64(0)), (None, None));
}

#[test]
fn t08_lower_hex_writes_leading_zeros_and_honours_width_and_prefix() {
    let (trace, span) = (TraceId::from_u128(0xa).unwrap(), SpanId::from_u64(u64::MAX >> 4).unwrap());
    assert_eq!(format!("{trace:x}"), "0000000000000000000000000000000a");
    assert_eq!(format!("{span:x} {span:#x}"), "0fffffffffffffff 0x0fffffffffffffff");
    assert_eq!(
        format!("[{span:>18x}] [{span:<18x}] [{span:#020x}]"),
        "[  0fffffffffffffff] [0fffffffffffffff  ] [0x000fffffffffffffff]"
    );
}

#[test]
fn t08_flags_keep_the_bits_that_level_2_defines() {
    for byte in 0..=255 {
        let flags = TraceFlags::from_byte(byte);
        assert_eq!(flags.to_byte(), byte & 3);
        assert_eq!((flags.is_sampled(), flags.is_random()), (byte & 1 == 1, byte & 2 == 2));
    }
}
