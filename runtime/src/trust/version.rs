//! Versions of models, as far as one can be said to come before another.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The most numbers of a version.
const MAX: usize = 8;

/// Numbers with dots between them, such as `3`, `1.10` or `2026.05.31`; numbers that are not there count as 0.
#[derive(Clone, Debug)]
pub struct Version(Vec<u64>);

impl Version {
    /// What a text says; `None` for anything but numbers and dots, because nothing says what comes before what there.
    pub fn parse(text: &str) -> Option<Version> {
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let numbers: Option<Vec<u64>> =
            text.split('.').take(MAX + 1).map(|part| part.parse().ok().filter(|_| digits(part))).collect();
        numbers.filter(|numbers| numbers.len() <= MAX).map(Version)
    }

    fn numbers(&self) -> [u64; MAX] {
        let mut all = [0; MAX];
        all.iter_mut().zip(&self.0).for_each(|(to, from)| *to = *from);
        all
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Version, String> {
        Version::parse(text).ok_or_else(|| format!("expected up to {MAX} numbers with dots between them"))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        self.numbers().cmp(&other.numbers())
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Version) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_not_letters() {
        let rising = ["0", "0.9", "1", "1.0.1", "1.9", "1.10", "2026.05.31", "2026.11"];
        for pair in rising.windows(2) {
            assert!(Version::parse(pair[0]) < Version::parse(pair[1]), "{pair:?}");
        }
        assert_eq!(Version::parse("1"), Version::parse("1.0.0"));
        assert_eq!(Version::parse("01.2").unwrap().to_string(), "1.2");
    }

    #[test]
    fn what_cannot_be_compared_is_no_version() {
        for text in ["", ".", "1.", "1..2", "v1", "1-rc1", "+1", "1.2.3.4.5.6.7.8.9", "99999999999999999999"]
        {
            assert!(Version::parse(text).is_none(), "{text}");
        }
    }
}
