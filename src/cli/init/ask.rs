//! Questions at a terminal, each with an answer that Enter gives.

use std::io::{self, BufRead, Write};

/// Who answers.
pub struct Asker<'a> {
    /// Where answers come from; `None` takes what Enter would give.
    pub answers: Option<&'a mut dyn BufRead>,
    /// Where questions go.
    pub words: &'a mut dyn Write,
}

impl Asker<'_> {
    /// One of `choices` by its number; the first, if nobody says otherwise.
    ///
    /// # Errors
    /// Those of asking and of reading the answer.
    pub fn choose(&mut self, question: &str, choices: &[String]) -> io::Result<usize> {
        if self.answers.is_none() || choices.len() < 2 {
            return Ok(0);
        }
        for (index, choice) in choices.iter().enumerate() {
            writeln!(self.words, "{:3}) {choice}", index + 1)?;
        }
        loop {
            let answer = self.ask(&format!("{question} [1]: "))?;
            if answer.is_empty() {
                return Ok(0);
            }
            match answer.parse::<usize>() {
                Ok(number) if (1..=choices.len()).contains(&number) => return Ok(number - 1),
                _ => writeln!(self.words, "give a number from 1 to {}", choices.len())?,
            }
        }
    }

    /// Some of `names`, separated by commas; none is all of them.
    ///
    /// # Errors
    /// Those of asking and of reading the answer.
    pub fn some_of(&mut self, question: &str, names: &[String]) -> io::Result<Vec<String>> {
        if self.answers.is_none() || names.len() < 2 {
            return Ok(Vec::new());
        }
        writeln!(self.words, "{}", names.join(", "))?;
        loop {
            let answer = self.ask(&format!("{question} [all]: "))?;
            let given = || answer.split(',').map(str::trim).filter(|name| !name.is_empty());
            match given().find(|name| *name != "all" && !names.iter().any(|known| known == name)) {
                Some(unknown) => writeln!(self.words, "'{unknown}' is none of them")?,
                None if given().any(|name| name == "all") => return Ok(Vec::new()),
                None => {
                    return Ok(names.iter().filter(|name| given().any(|g| g == *name)).cloned().collect());
                }
            }
        }
    }

    /// An answer without spaces around it; an empty one at the end of all answers.
    fn ask(&mut self, question: &str) -> io::Result<String> {
        write!(self.words, "{question}")?;
        self.words.flush()?;
        let mut line = String::new();
        if let Some(answers) = &mut self.answers {
            answers.read_line(&mut line)?;
        }
        Ok(line.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<T>(answers: Option<&str>, ask: impl FnOnce(&mut Asker) -> io::Result<T>) -> (T, String) {
        let mut words = Vec::new();
        let mut lines = answers.map(str::as_bytes);
        let answers = lines.as_mut().map(|lines| lines as &mut dyn BufRead);
        let answer = ask(&mut Asker { answers, words: &mut words }).unwrap();
        (answer, String::from_utf8(words).unwrap())
    }

    #[test]
    fn a_choice_by_its_number() {
        let choices = ["a", "b"].map(String::from);
        for (answers, chosen, said) in [
            (None, 0, ""),
            (Some("\n"), 0, "Which? [1]: "),
            (Some("2\n"), 1, "  2) b\nWhich? [1]: "),
            (Some("x\n0\n3\n 2 \n"), 1, "give a number from 1 to 2"),
            (Some(""), 0, "[1]: "),
        ] {
            let (index, words) = asked(answers, |asker| asker.choose("Which?", &choices));
            assert_eq!(index, chosen, "{answers:?}");
            assert!(words.contains(said) && (answers.is_some() || words.is_empty()), "{words}");
        }
        assert_eq!(asked(Some("2\n"), |asker| asker.choose("Which?", &choices[..1])), (0, String::new()));
    }

    #[test]
    fn some_names_or_all() {
        let names = ["car", "person", "dog"].map(String::from);
        for (answers, some) in [
            (None, &[][..]),
            (Some("\n"), &[]),
            (Some("all\n"), &[]),
            (Some(" dog , car\n"), &["car", "dog"]),
            (Some("dgo\ndog\n"), &["dog"]),
            (Some("dgo\n"), &[]),
        ] {
            let (given, words) = asked(answers, |asker| asker.some_of("Which?", &names));
            assert_eq!(given, some, "{answers:?}");
            assert_eq!(
                words.contains("'dgo' is none of them"),
                answers.is_some_and(|a| a.starts_with("dgo"))
            );
        }
    }
}
