//! Text in a page.

use std::borrow::Cow;
use std::time::Duration;

/// A text as a page shows it, in an element or in an attribute with quotes.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    Cow::Owned(safe)
}

/// `340 ms`, `1.2 s`, `12 s`, `3m 4s`, `2days 1h`: two units at most.
pub(super) fn spoken(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..60_000 => format!("{} s", ms / 1000),
        _ => {
            let coarse = if ms < 3_600_000 {
                1
            } else if ms < 86_400_000 {
                60
            } else {
                3600
            };
            let seconds = ms / 1000 / coarse * coarse;
            humantime::format_duration(Duration::from_secs(seconds)).to_string()
        }
    }
}

/// `3.1 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    if bytes < MIB {
        return format!("{} KiB", bytes / KIB);
    }
    format!("{}.{} MiB", bytes / MIB, bytes % MIB * 10 / MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_markup() {
        assert_eq!(escaped("<b a='1'>&\"</b>"), "&lt;b a=&#39;1&#39;&gt;&amp;&quot;&lt;/b&gt;");
        assert!(matches!(escaped("plain"), Cow::Borrowed("plain")));
    }

    #[test]
    fn times_and_sizes_are_said_in_the_unit_that_fits() {
        let times = [999, 1234, 12_345, 184_000, 7_261_000, 180_061_000].map(spoken);
        assert_eq!(times, ["999 ms", "1.2 s", "12 s", "3m 4s", "2h 1m", "2days 2h"]);
        assert_eq!([2048, 3_300_000].map(size), ["2 KiB", "3.1 MiB"]);
    }
}
