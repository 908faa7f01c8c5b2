//! Completion scripts and manual pages of both programs, from their arguments.

use std::path::Path;

use clap::builder::PossibleValuesParser;
use clap::{Arg, Command, ValueHint};
use clap_complete::Shell;

/// What value names stand for: folders, files, either. A name with a dot (`FILE.csv`) is a file, too.
const FOLDERS: [&str; 3] = ["DIR", "RUN", "FOLDER"];
const FILES: [&str; 5] = ["FILE", "MODEL", "IMAGE", "BANK", "DETECTOR"];
const PATHS: [&str; 2] = ["INPUTS", "IMAGES"];

/// Words of value names that are no paths, each with what it stands for.
pub type Words = [(&'static str, Vec<&'static str>)];

/// A completion script. Value names of arguments say what can be completed: `DIR|FILE.csv|none` are folders, files and a word.
/// `words` are all such words, each with what is completed for it: itself, or what it stands for.
pub fn completions(mut command: Command, shell: Shell, words: &Words) -> String {
    let program = command.get_name().to_owned();
    let mut mixed = Vec::new();
    command = told(command, words, &mut mixed);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, program, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    mixed.iter().fold(script, |script, words| with_paths(script, shell, words))
}

/// Writes a manual page for each command into a folder.
///
/// # Errors
/// Of the file system.
pub fn manual_pages(command: Command, folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}

/// The manual page of the program itself.
///
/// # Errors
/// None that writing to memory could have.
pub fn manual_page(command: Command) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}

/// The command with a hint for each argument; lists of words that stand next to paths go to `mixed`.
fn told(command: Command, words: &Words, mixed: &mut Vec<Vec<&'static str>>) -> Command {
    command
        .mut_args(|arg| if arg.get_action().takes_values() { with_hint(arg, words, mixed) } else { arg })
        .mut_subcommands(|below| told(below, words, mixed))
}

fn with_hint(arg: Arg, words: &Words, mixed: &mut Vec<Vec<&'static str>>) -> Arg {
    if !arg.get_possible_values().is_empty() {
        return arg;
    }
    let name = match arg.get_value_names() {
        Some([name]) => name.to_string(),
        _ => arg.get_id().as_str().to_uppercase(),
    };
    let (mut offered, mut folders, mut files) = (Vec::new(), false, false);
    for choice in name.trim_end_matches(",...").split('|') {
        offered.extend(words.iter().filter(|(word, _)| *word == choice).flat_map(|(_, list)| list));
        folders |= FOLDERS.contains(&choice) || PATHS.contains(&choice);
        files |= FILES.contains(&choice) || PATHS.contains(&choice) || choice.contains('.');
    }
    let hint = match (folders, files) {
        (true, true) => ValueHint::AnyPath,
        (true, false) => ValueHint::DirPath,
        (false, true) => ValueHint::FilePath,
        (false, false) => ValueHint::Other,
    };
    if offered.is_empty() {
        return arg.value_hint(hint);
    }
    offered.sort();
    if (folders || files) && !mixed.contains(&offered) {
        mixed.push(offered.clone());
    }
    arg.value_parser(PossibleValuesParser::new(offered))
}

/// Lets paths be completed where these words are: bash does so by itself when no word fits.
fn with_paths(script: String, shell: Shell, words: &[&str]) -> String {
    match shell {
        Shell::Zsh => {
            let words = words.join(" ");
            script.replace(&format!(":({words})"), &format!(":{{_files; compadd {words}}}"))
        }
        Shell::Fish => {
            let list = words.join("\\t''\n");
            script.replace(&format!("-f -a \"{list}"), &format!("-F -a \"{list}"))
        }
        _ => script,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(shell: Shell) -> String {
        let command = Command::new("prog").subcommand(
            Command::new("go")
                .arg(Arg::new("start").long("start").value_name("auto|START|RUN|FILE"))
                .arg(Arg::new("kind").long("kind").value_parser(["one", "two"]))
                .arg(Arg::new("out").long("out").value_name("DIR"))
                .arg(Arg::new("count").long("count").value_name("N"))
                .arg(Arg::new("model").required(true)),
        );
        completions(command, shell, &[("START", vec!["small", "large"]), ("auto", vec!["auto"])])
    }

    #[test]
    fn zsh_completes_words_and_paths() {
        let script = script(Shell::Zsh);
        assert!(script.contains(":{_files; compadd auto large small}"), "{script}");
        assert!(script.contains(":(one two)"), "{script}");
        assert!(script.contains(":DIR:_files -/"), "{script}");
        assert!(script.contains(":N:'") || script.contains(":N: '"), "{script}");
        assert!(script.contains(":model:_files"), "{script}");
    }

    #[test]
    fn fish_completes_words_and_paths() {
        let script = script(Shell::Fish);
        let line = |flag: &str| script.lines().find(|line| line.contains(flag)).unwrap_or_default();
        assert!(line("-l start").contains("-F -a \"auto"), "{script}");
        assert!(line("-l kind").contains("-f -a \"one"), "{script}");
        assert!(line("-l out").contains("__fish_complete_directories"), "{script}");
    }

    #[test]
    fn bash_completes_words_and_folders() {
        let script = script(Shell::Bash);
        assert!(script.contains("compgen -W \"auto large small\""), "{script}");
        assert!(script.contains("plusdirs"), "{script}");
    }
}
