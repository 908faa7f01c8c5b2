//! Settings files: TOML whose keys are the command's flags, laid under what was typed.
//!
//! A file's values go through the same parser as flags do, so that both accept the same and refuse the same.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, Args, Command};
use serde::Serialize;
use serde::de::DeserializeOwned;
use smalti_tools::suggest::did_you_mean;
use smalti_tools::usage::one_line;
use smalti_trainer::{Error, Result, files};
use toml::{Table, Value};

use super::Global;

/// No settings file of ours is larger.
const LIMIT: u64 = 1 << 20;

/// A typed flag makes these keys of the file void, which say the same in another way or belong to another choice, unless
/// the file makes the same choice.
const VOIDS: [(&str, &[&str]); 8] = [
    ("budget", &["steps", "epochs", "warmup-epochs"]),
    ("steps", &["epochs", "warmup-epochs"]),
    ("epochs", &["steps", "warmup-epochs"]),
    ("blr", &["lr"]),
    ("lr", &["blr"]),
    ("model", &["dim", "depth", "heads"]),
    ("optimizer", &["muon-lr"]),
    ("decoder", &["predict-ratio"]),
];

/// Flags that concern one call and not the run: no settings file holds them.
const OF_THE_CALL: [&str; 2] = ["resume", "overwrite"];

/// The settings file of a command: the one that `--config` names, else what the folder that it continues in has kept.
pub(crate) fn file(global: &Global, continues: Option<&Path>) -> Option<PathBuf> {
    let kept = || continues.map(|folder| folder.join("config.toml")).filter(|path| path.is_file());
    global.config.clone().or_else(kept)
}

/// The flags, and for what they leave open the environment, then the file.
pub(crate) fn merge<T: Args + Serialize + DeserializeOwned>(flags: T, file: Option<&Path>) -> Result<T> {
    merge_with(flags, file, std::env::var("SMALTI_THREADS").ok().as_deref())
}

fn merge_with<T: Args + Serialize + DeserializeOwned>(
    flags: T,
    file: Option<&Path>,
    threads: Option<&str>,
) -> Result<T> {
    let from_file = file.map(read::<T>).transpose()?.unwrap_or_default();
    let mut merged = given(&flags)?;
    let chosen = |key: &str| merged.get(key).is_some_and(|value| from_file.get(key) != Some(value));
    let void: Vec<&str> =
        VOIDS.iter().filter(|(key, _)| chosen(key)).flat_map(|(_, void)| *void).copied().collect();
    if let Some(text) = threads.filter(|_| names::<T>().iter().any(|name| name == "threads")) {
        let wrong = || Error::Usage(format!("SMALTI_THREADS is `{text}`: expected a number of threads"));
        let threads: u32 = text.parse().map_err(|_| wrong())?;
        merged.entry("threads").or_insert(i64::from(threads).into());
    }
    for (key, value) in from_file.into_iter().filter(|(key, _)| !void.contains(&key.as_str())) {
        merged.entry(key).or_insert(value);
    }
    merged.try_into().map_err(unusable)
}

/// Arguments as the text of a settings file.
pub(crate) fn to_toml(args: &impl Serialize) -> Result<String> {
    let mut given = given(args)?;
    OF_THE_CALL.iter().for_each(|key| _ = given.remove(*key));
    toml::to_string_pretty(&given)
        .map_err(|e| Error::Usage(format!("settings cannot be written as TOML: {e}")))
}

/// The arguments that have a value. TOML rather than JSON: it has a word for a number that is none.
fn given(args: &impl Serialize) -> Result<Table> {
    Table::try_from(args).map_err(unusable)
}

fn unusable(error: impl std::fmt::Display) -> Error {
    Error::Usage(format!("settings cannot be used: {error}"))
}

/// A parser of one command's arguments alone.
fn parser<T: Args>() -> Command {
    T::augment_args(Command::new("file").no_binary_name(true).disable_help_flag(true))
        .mut_args(|arg| arg.required(false))
}

/// The flags of a command.
fn names<T: Args>() -> Vec<String> {
    parser::<T>().get_arguments().filter_map(Arg::get_long).map(str::to_owned).collect()
}

/// The settings of a file.
fn read<T: Args + Serialize>(path: &Path) -> Result<Table> {
    let place = path.display();
    let wrong = |problem: String| Error::Usage(format!("{place}: {problem}"));
    let text = String::from_utf8(files::read(path, LIMIT)?).map_err(|_| wrong("is not UTF-8 text".into()))?;
    let table: Table = text.parse().map_err(|e: toml::de::Error| {
        let line = e.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        wrong(format!("line {line} is no TOML: {}", e.message()))
    })?;
    let names = names::<T>();
    let mut words = Vec::new();
    for (key, value) in &table {
        let name = key.replace('_', "-");
        if !names.contains(&name) {
            let hint = did_you_mean(&name, names.iter().map(String::as_str));
            return Err(wrong(format!(
                "unknown key `{key}`: keys are the command's flags, see its --help{hint}"
            )));
        }
        let Some(text) = word(value) else {
            return Err(wrong(format!(
                "`{key}` is {}, expected a value such as the flag takes",
                value.type_str()
            )));
        };
        words.push(OsString::from(format!("--{name}={text}")));
    }
    let matches =
        parser::<T>().try_get_matches_from(words).map_err(|e| wrong(one_line(&e.render().to_string())))?;
    let args = T::from_arg_matches(&matches).map_err(|e| wrong(one_line(&e.render().to_string())))?;
    given(&args)
}

/// A value as a flag would be given it.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(on) => Some(on.to_string()),
        Value::Array(values) => {
            let words: Option<Vec<String>> = values.iter().filter(|v| !v.is_array()).map(word).collect();
            words.filter(|words| words.len() == values.len()).map(|words| words.join(","))
        }
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::PretrainArgs;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn merged(flags: &[&str], text: &str, threads: Option<&str>) -> Result<PretrainArgs> {
        let matches = parser::<PretrainArgs>().try_get_matches_from(flags).unwrap();
        let flags = <PretrainArgs as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
        merge_with(flags, Some(file(text).path()), threads)
    }

    #[test]
    fn a_flag_comes_before_the_environment_and_that_before_the_file() {
        let text =
            "epochs = 3\nmask_ratio = 0.5\nthreads = 7\nflip = false\nmean = [0.5, 0.25, 1]\ndata = \"a b\"";
        let args = merged(&["--epochs=9"], text, Some("5")).unwrap();
        assert_eq!((args.optim.epochs, args.mask_ratio, args.machine.threads), (Some(9), Some(0.5), Some(5)));
        assert_eq!((args.images.flip, args.images.mean), (Some(false), Some(vec![0.5, 0.25, 1.0])));
        assert_eq!(args.data.unwrap().to_str(), Some("a b"));
        assert_eq!(merged(&["-t1"], text, Some("5")).unwrap().machine.threads, Some(1));
        assert_eq!(merged(&[], text, None).unwrap().machine.threads, Some(7));
        assert!(merged(&[], text, Some("many")).is_err());
    }

    #[test]
    fn a_flag_voids_what_says_the_same_otherwise() {
        let text = "lr = 0.1\ndim = 32\nheads = 2";
        let args = merged(&["--blr=0.2", "--model=tiny", "--heads=4"], text, None).unwrap();
        assert_eq!((args.optim.lr, args.optim.blr), (None, Some(0.2)));
        assert_eq!((args.size.dim, args.size.heads), (None, Some(4)));
        let text = "optimizer = \"muon\"\nmuon-lr = 0.04\ndecoder = \"cross\"\npredict-ratio = 0.5";
        let other = merged(&["--optimizer=adamw", "--decoder=full"], text, None).unwrap();
        assert_eq!((other.optim.muon_lr, other.predict_ratio), (None, None));
        let same = merged(&["--optimizer=muon", "--decoder=cross"], text, None).unwrap();
        assert_eq!((same.optim.muon_lr, same.predict_ratio), (Some(0.04), Some(0.5)));
    }

    #[test]
    fn what_a_file_gets_wrong_is_named() {
        let problem = |text| merged(&[], text, None).unwrap_err().to_string();
        assert!(problem("learning-rate = 1").contains("`learning-rate`"));
        assert!(problem("config = \"x\"").contains("`config`"));
        assert!(problem("[optim]\nepochs = 1").contains("`optim`"));
        assert!(problem("[epochs]\nx = 1").contains("`epochs` is table"));
        assert!(problem("epochs = \"many\"").contains("many"));
        assert!(problem("\nepochs = ").contains("line 2"));
    }

    #[test]
    fn saved_settings_are_a_settings_file() {
        let args = merged(&["--resume", "--epochs=4", "--betas=0.9,0.95"], "flip = false", None).unwrap();
        let text = to_toml(&args).unwrap();
        assert!(!text.contains("resume"), "{text}");
        let again = merged(&[], &text, None).unwrap();
        assert_eq!(to_toml(&again).unwrap(), text);
        assert_eq!(again.optim.betas, Some(vec![0.9, 0.95]));
    }
}
