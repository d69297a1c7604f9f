//! Words of a command line that a person may paste into a shell.

/// Quotes a word, where it needs it, so that a shell takes it for one word and runs nothing of it. NUL, which no command line can hold, is dropped.
pub fn word(text: &str) -> String {
    let text = text.replace('\0', "");
    shlex::try_quote(&text).map_or_else(|_| String::new(), |quoted| quoted.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_each_word_as_it_was() {
        for text in ["plain", "two words", "it's; id", "$(id)", "`id`", "a\nb", "", "\"", "\\", "!x", "~", "-x", "\u{202e}ü"] {
            let echoed = std::process::Command::new("sh").args(["-c", &format!("printf %s {}", word(text))]).output().unwrap();
            assert_eq!(String::from_utf8(echoed.stdout).unwrap(), text);
        }
    }
}
