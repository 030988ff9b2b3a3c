//! The terminal when keys are read one by one: it is put back as it was, whatever ends the command.

use std::io::{self, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

pub(crate) const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const CTRL_U: u8 = 21;
const BACKSPACE: [u8; 2] = [8, 127];

/// Keys arrive as they are struck and are not shown.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// # Errors
    /// When stdin is no terminal.
    pub(crate) fn open() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        // Ctrl-C is a key like others here, so that the terminal is put back as it was.
        raw.local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing is left to try when the terminal has gone.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// A line that nobody sees being typed; `None` when it was given up with Ctrl-C.
///
/// # Errors
/// The terminal's.
pub(crate) fn hidden_line() -> io::Result<Option<String>> {
    let raw = Raw::open()?;
    let line = line_of(io::stdin().lock().bytes())?;
    drop(raw);
    // The line's end was not shown either.
    drop(io::stderr().write_all(b"\n"));
    Ok(line)
}

fn line_of(keys: impl Iterator<Item = io::Result<u8>>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    for key in keys {
        match key? {
            CTRL_C => return Ok(None),
            b'\n' | b'\r' | CTRL_D => break,
            CTRL_U => line.clear(),
            key if BACKSPACE.contains(&key) => {
                // A character of several bytes goes as a whole.
                while line.pop().is_some_and(|byte: u8| byte & 0xC0 == 0x80) {}
            }
            key => line.push(key),
        }
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_mended_and_given_up() {
        let typed = |keys: &[u8]| line_of(keys.iter().map(|key| Ok(*key))).unwrap();
        assert_eq!(typed(b"secret\rmore").as_deref(), Some("secret"));
        assert_eq!(typed(b"sx\x7fecret\n").as_deref(), Some("secret"));
        assert_eq!(typed("aü\u{8}b\n".as_bytes()).as_deref(), Some("ab"));
        assert_eq!(typed(b"wrong\x15right\n").as_deref(), Some("right"));
        assert_eq!(typed(b"half\x03"), None);
    }
}
