//! A text that is shown anew in place of the one before: without flicker on a terminal, one after the other elsewhere.

use std::io::{ErrorKind, IsTerminal, Write};

use console::{Term, measure_text_width, style};

/// A screen of its own, which leaves the terminal as it was, with the last text on it, when it is dropped.
pub(crate) struct Screen {
    /// `None`: this is no terminal.
    term: Option<Term>,
    last: String,
}

/// The other screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

impl Screen {
    pub(crate) fn open() -> std::io::Result<Screen> {
        let term = std::io::stdout().is_terminal().then(Term::stdout);
        if term.is_some() {
            write_all(ENTER)?;
        }
        Ok(Screen { term, last: String::new() })
    }

    /// Shows `text`, of which the first word is the light.
    pub(crate) fn show(&mut self, text: &str) -> std::io::Result<()> {
        self.last = text.to_owned();
        let Some(term) = &self.term else { return write_all(&format!("{text}\n\n")) };
        let (rows, columns) = term.size();
        write_all(&frame(text, rows.into(), columns.into()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.term.is_some() {
            // A terminal that is gone needs nothing any more.
            let _ = write_all(&format!("{LEAVE}{}\n", self.last));
        }
    }
}

fn write_all(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        crate::end_unread();
    }
    written
}

/// Everything that puts `text` over what was there: each line over its own, to its end, then nothing below.
fn frame(text: &str, rows: usize, columns: usize) -> String {
    let mut lines: Vec<String> = text.lines().flat_map(|line| wrapped(line, columns.max(20))).collect();
    let fit = rows.max(2) - 1;
    if lines.len() > fit {
        let hidden = lines.len() - fit + 1;
        lines.truncate(fit - 1);
        lines.push(format!("… {hidden} more lines"));
    }
    if let Some(first) = lines.first_mut() {
        *first = coloured(first);
    }
    let mut frame = "\x1b[H".to_owned();
    for line in lines {
        frame.push_str(&line);
        frame.push_str("\x1b[K\r\n");
    }
    frame + "\x1b[J"
}

fn coloured(line: &str) -> String {
    let Some((word, rest)) = line.split_once(':') else { return line.to_owned() };
    let word = match word {
        "GREEN" => style(word).green(),
        "YELLOW" => style(word).yellow(),
        "RED" => style(word).red(),
        _ => return line.to_owned(),
    };
    format!("{}:{rest}", word.bold().force_styling(true))
}

/// The line in pieces of at most `columns`, parted at spaces where that is possible, each after the first two columns in.
fn wrapped(line: &str, columns: usize) -> Vec<String> {
    let begin = line.len() - line.trim_start().len();
    let mut pieces = vec![line[..begin].to_owned()];
    for word in line[begin..].split(' ') {
        let last = pieces.last_mut().expect("there is one");
        let is_first = last.trim_start().is_empty();
        if !is_first && measure_text_width(last) + 1 + measure_text_width(word) > columns {
            pieces.push(format!("{}  {word}", &line[..begin]));
        } else {
            if !is_first {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_parted_at_spaces_and_goes_on_further_in() {
        assert_eq!(wrapped("  one two three", 9), ["  one two", "    three"]);
        assert_eq!(wrapped("", 20), [""]);
        assert_eq!(wrapped("ä ö ü", 3), ["ä ö", "  ü"]);
    }

    #[test]
    fn a_frame_covers_what_was_there_and_never_scrolls() {
        let shown = frame("RED: a\nb\nc\nd", 4, 80);
        assert_eq!(shown, "\x1b[H\x1b[31m\x1b[1mRED\x1b[0m: a\x1b[K\r\nb\x1b[K\r\n… 2 more lines\x1b[K\r\n\x1b[J");
    }
}
