//! Quantities as people say them.

use std::time::Duration;

/// `1.2 s`, `340 ms`, `3h 2m 1s`.
pub(crate) fn time(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => humantime::format_duration(Duration::from_secs(ms / 1000)).to_string(),
    }
}

/// The same in at most seven characters, for a column: `340ms`, `1.2s`, `3h 2m`, `12d 4h`.
pub(crate) fn short_time(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", ms % 1000 / 100),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// `812 KiB`, `3.1 MiB`, `1.5 GiB`.
pub(crate) fn memory(bytes: u64) -> String {
    const KIB: u64 = 1024;
    let of = |unit: u64, word| format!("{}.{} {word}", bytes / unit, bytes % unit * 10 / unit);
    match bytes / KIB {
        kib @ 0..1024 => format!("{kib} KiB"),
        1024..1_048_576 => of(KIB * KIB, "MiB"),
        _ => of(KIB * KIB * KIB, "GiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_spoken_in_the_unit_that_fits() {
        assert_eq!(time(999), "999 ms");
        assert_eq!(time(1234), "1.2 s");
        assert_eq!(time(61_000), "1m 1s");
    }

    #[test]
    fn a_short_time_fits_a_column() {
        let of = |seconds: u64| short_time(seconds * 1000 + 250);
        assert_eq!([of(0), of(9), of(61)], ["250ms", "9.2s", "1m 1s"]);
        assert_eq!([of(3600), of(100 * 86_400 - 1)], ["1h 0m", "99d 23h"]);
    }

    #[test]
    fn memory_is_spoken_in_the_unit_that_fits() {
        assert_eq!(memory(1023 * 1024), "1023 KiB");
        assert_eq!(memory(3 * 1024 * 1024 + 200 * 1024), "3.1 MiB");
        assert_eq!(memory(u64::from(u32::MAX) + 1), "4.0 GiB");
    }
}
