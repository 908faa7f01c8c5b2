//! The command line before clap sees it: `--mask_ratio` is `--mask-ratio`, `--no-flip` is `--flip=false`.

use std::ffi::OsString;

/// Switches that are on by themselves, and so have a `--no-` form.
const ON_BY_DEFAULT: [&str; 4] = ["flip", "norm-pix-loss", "timing", "token-targets"];

/// Tidies the words of a command line; what follows a bare `--` is left alone.
pub(crate) fn tidy(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut open = true;
    let mut tidied = Vec::new();
    for word in words {
        open &= word != "--";
        tidied.push(if open { tidy_word(word) } else { word });
    }
    tidied
}

fn tidy_word(word: OsString) -> OsString {
    let Some(flag) = word.to_str().and_then(|text| text.strip_prefix("--")) else { return word };
    let (name, value) = flag.split_at(flag.find('=').unwrap_or(flag.len()));
    let name = name.replace('_', "-");
    match name.strip_prefix("no-").filter(|name| value.is_empty() && ON_BY_DEFAULT.contains(name)) {
        Some(name) => format!("--{name}=false").into(),
        None => format!("--{name}{value}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tidied_and_values_are_not() {
        let words =
            ["smalti", "--mask_ratio=0.6", "a_b", "--out", "my_run", "--no-flip", "--no_norm_pix_loss"];
        let want =
            ["smalti", "--mask-ratio=0.6", "a_b", "--out", "my_run", "--flip=false", "--norm-pix-loss=false"];
        assert_eq!(tidy(words.map(OsString::from)), want);
        let words = ["--fit=a_b", "--no-way", "--", "--a_b"];
        assert_eq!(tidy(words.map(OsString::from)), ["--fit=a_b", "--no-way", "--", "--a_b"]);
    }
}
