//! What both programs say of a command line that cannot be: one line, with what to type instead.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{Command, Error};

use crate::suggest::{did_you_mean, nearest};

/// The programs and their commands; each program's tests hold its own list against its arguments.
pub const PROGRAMS: [(&str, &[&str]); 2] = [
    (
        "smalti",
        &[
            "quickstart",
            "train",
            "curve",
            "report",
            "data",
            "select",
            "label",
            "pretrain",
            "distil",
            "finetune",
            "eval",
            "embed",
            "reconstruct",
            "import",
            "export",
            "bench",
            "doctor",
            "completions",
            "man",
        ],
    ),
    (
        "smalti-run",
        &[
            "run",
            "eval",
            "explain",
            "serve",
            "page",
            "quantize",
            "compare",
            "inspect",
            "selftest",
            "verify",
            "embed",
            "learn",
            "anomaly",
            "bench",
            "doctor",
            "completions",
            "man",
        ],
    ),
];

/// Names that other tools give to commands of ours.
const ALIASES: [(&str, &str); 10] = [
    ("predict", "run"),
    ("classify", "run"),
    ("infer", "run"),
    ("detect", "anomaly"),
    ("val", "eval"),
    ("test", "eval"),
    ("evaluate", "eval"),
    ("fit", "train"),
    ("distill", "distil"),
    ("benchmark", "bench"),
];

/// The refusal of a command line on one line: what was typed, what is expected, what to type instead. `words` are all words
/// of it, the program's name first.
pub fn refusal(error: &Error, program: &Command, words: &[OsString]) -> String {
    let told = one_line(&error.render().to_string());
    let (command, name) = called(program, words);
    let hint = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => {
            // What another program has, or another tool calls so, is more likely meant than what is spelt alike.
            if let Some(meant) = elsewhere(word, program.get_name()) {
                if meant == format!("{} {word}", program.get_name()) {
                    return format!(
                        "`{word}` was left out of this build: a device needs less; run it on a workstation"
                    );
                }
                return format!("`{word}` is no command of {}: type `{meant}`", program.get_name());
            }
            match told.contains("; tip: ") {
                true => String::new(),
                false => did_you_mean(word, program.get_subcommands().map(Command::get_name)),
            }
        }
        _ => misplaced(error, command, &name).unwrap_or_default(),
    };
    format!("{told}{hint}; see `{name} --help`")
}

/// What clap has to say, without its paragraphs.
pub fn one_line(rendered: &str) -> String {
    let told = rendered.split("\n\nUsage:").next().unwrap_or_default();
    let told = told.split("\n\nFor more").next().unwrap_or_default();
    let lines: Vec<&str> = told.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ").trim_start_matches("error: ").replace(":;", ":")
}

/// The command that is called so in the other program or by other tools, as it is typed.
fn elsewhere(word: &str, program: &str) -> Option<String> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == word).map(|(_, command)| *command);
    let command = alias.unwrap_or(word);
    // This program first.
    let mut programs = PROGRAMS;
    programs.sort_by_key(|(name, _)| *name != program);
    let exactly = programs.iter().find(|(_, commands)| commands.contains(&command));
    if let Some((name, _)) = exactly {
        return Some(format!("{name} {command}"));
    }
    let alike = |(name, commands): &(&'static str, &'static [&'static str])| {
        Some((*name, nearest(word, commands.iter().copied())?))
    };
    let (name, command) = programs.iter().find_map(alike).filter(|(name, _)| *name != program)?;
    Some(format!("{name} {command}"))
}

/// The command that was called, and its name from the program on.
fn called<'a>(program: &'a Command, words: &[OsString]) -> (&'a Command, String) {
    let (mut command, mut name) = (program, program.get_name().to_owned());
    for word in words.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(below) = command.find_subcommand(word) {
            command = below;
            name = format!("{name} {word}");
        }
    }
    (command, name)
}

/// What to type where the images stand in the wrong place: behind `--data` or alone.
fn misplaced(error: &Error, command: &Command, name: &str) -> Option<String> {
    let Some(ContextValue::String(found)) = error.get(ContextKind::InvalidArg) else { return None };
    let data = command.get_arguments().find(|arg| arg.get_id() == "data")?;
    match (found.as_str(), data.is_positional()) {
        ("--data", true) => Some(format!("; the folder stands alone: `{name} DIR`")),
        (found, false) if !found.starts_with('-') => {
            Some(format!("; if it is the data set, type `--data {found}`"))
        }
        _ => None,
    }
}

/// Panics, as a test does, unless every command of a program has an example in its help, and each can be typed; `tidy` is what the
/// program does to words first.
pub fn check_examples(program: &Command, tidy: impl Fn(Vec<OsString>) -> Vec<OsString>) {
    let mut open: Vec<(String, &Command)> = vec![(String::new(), program)];
    while let Some((path, command)) = open.pop() {
        let name = format!("{path}{}", command.get_name());
        if command.has_subcommands() {
            let below =
                command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help");
            open.extend(below.map(|below| (format!("{name} "), below)));
            continue;
        }
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let examples: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  ")).collect();
        let examples: Vec<&str> = examples.into_iter().filter(|line| line.starts_with(&name)).collect();
        assert!(!examples.is_empty(), "`{name} --help` has no example");
        for example in examples {
            // What stands behind two spaces says what it does, and a shell takes the rest from `>` on.
            let typed = example.split("  ").next().unwrap_or_default().split(" >").next().unwrap_or_default();
            let parsed =
                program.clone().try_get_matches_from(tidy(typed.split(' ').map(OsString::from).collect()));
            assert!(parsed.is_ok(), "`{typed}`: {}", parsed.map(drop).unwrap_err());
        }
    }
}

/// Panics, as a test does, unless [`PROGRAMS`] lists the commands of this program.
pub fn check_commands(program: &Command) {
    let commands: Vec<&str> =
        program.get_subcommands().map(Command::get_name).filter(|name| *name != "help").collect();
    let listed = PROGRAMS.iter().find(|(name, _)| *name == program.get_name()).map(|(_, listed)| *listed);
    assert_eq!(Some(&commands[..]), listed);
}

#[cfg(test)]
mod tests {
    use clap::{Arg, error::ErrorKind};

    use super::*;

    fn program() -> Command {
        Command::new("smalti")
            .subcommand(Command::new("train").arg(Arg::new("data")).arg(Arg::new("out").long("out")))
            .subcommand(Command::new("pretrain").arg(Arg::new("data").long("data")))
    }

    fn said(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let error = program().try_get_matches_from(&words).unwrap_err();
        assert_ne!(error.kind(), ErrorKind::DisplayHelp);
        let said = refusal(&error, &program(), &words);
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    }

    #[test]
    fn commands_of_the_other_program_and_of_other_tools_are_known() {
        assert_eq!(said("smalti run a.onnx"), "`run` is no command of smalti: type `smalti-run run`");
        assert!(said("smalti quantise").contains("`smalti-run quantize`"));
        assert!(said("smalti predict").contains("`smalti-run run`"));
        assert!(said("smalti fit").contains("`smalti train`"));
        assert!(said("smalti trian").contains("'train'"));
        assert!(said("smalti rtain").contains("train"));
        assert!(said("smalti bench").contains("left out of this build"));
        assert!(said("smalti xyzzy").contains("see `smalti --help`"));
    }

    #[test]
    fn images_in_the_wrong_place_are_told_where_to_stand() {
        assert!(said("smalti train --data photos").contains("`smalti train DIR`"));
        assert!(said("smalti pretrain photos").contains("`--data photos`"));
        assert!(said("smalti train a --ou b").contains("'--out'"));
        assert!(said("smalti train a --ou b").ends_with("see `smalti train --help`"));
    }
}
