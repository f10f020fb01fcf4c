//! The time of day, as the dialects write it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970 UTC.
pub(crate) fn now_s() -> u64 {
    // A clock before 1970 is no reason to refuse an answer.
    let age = SystemTime::now().duration_since(UNIX_EPOCH);
    age.unwrap_or_default().as_secs()
}

/// `1970-01-01T00:00:00Z` (RFC 3339) of a number of seconds since then.
pub(crate) fn rfc3339(seconds: u64) -> String {
    let (mut year, mut day) = (1970_u64, seconds / 86_400);
    let length = |year: u64| {
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        365 + u64::from(leap)
    };
    // Nobody's clock is beyond the year 9999, and the format is not either.
    while year < 9999 && day >= length(year) {
        day -= length(year);
        year += 1;
    }
    let february = length(year) - 337;
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let day = day.min(30) + 1;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
        assert!(rfc3339(u64::MAX).starts_with("9999-"));
    }
}
