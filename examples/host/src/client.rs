//! A request to a node, through the socket in its data directory.

use crate::Failure;
use std::{
    io::{self, ErrorKind},
    path::Path,
    process::ExitCode,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A line of an answer. All but the first kind end it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// An event of a watch, or a line of an answer that has more.
    Event(String),
    /// The request is fulfilled.
    Yes(String),
    /// The request is not fulfilled, though nothing failed.
    No(String),
    /// The reason why there is no answer. The outcome of a command may be unknown.
    Error(String),
}

impl Line {
    pub(crate) fn encode(&self) -> String {
        let (mark, text) = match self {
            Self::Event(text) => ("event", text),
            Self::Yes(text) => ("yes", text),
            Self::No(text) => ("no", text),
            Self::Error(text) => ("error", text),
        };
        format!("{mark} {}\n", text.replace(['\n', '\r'], " "))
    }

    fn decode(line: &str) -> Option<Self> {
        let (mark, text) = line.strip_suffix('\n')?.split_once(' ')?;
        let line = match mark {
            "event" => Self::Event,
            "yes" => Self::Yes,
            "no" => Self::No,
            "error" => Self::Error,
            _ => return None,
        };
        Some(line(text.to_owned()))
    }
}

/// A request that was sent. The node stops to answer when this is dropped.
#[derive(Debug)]
pub struct Asking {
    answer: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
    _open: OwnedWriteHalf,
}

/// Sends a request, one line of words, to the node with this data directory.
///
/// # Errors
/// If no node serves there, or the connection breaks.
pub async fn ask(data: &Path, request: &str) -> io::Result<Asking> {
    let socket = data.join("socket");
    let stream = UnixStream::connect(&socket).await;
    let stream = stream
        .map_err(|error| io::Error::new(error.kind(), format!("no node serves {}: {error}", socket.display())))?;
    let (read, mut write) = stream.into_split();
    write.write_all(format!("{request}\n").as_bytes()).await?;
    Ok(Asking { answer: BufReader::new(read), line: Vec::new(), _open: write })
}

impl Asking {
    /// The next line of the answer. To drop the future loses nothing.
    ///
    /// # Errors
    /// If the node ends before the answer does: the outcome of a command is unknown.
    pub async fn next(&mut self) -> io::Result<Line> {
        self.answer.read_until(b'\n', &mut self.line).await?;
        let line = str::from_utf8(&std::mem::take(&mut self.line)).ok().and_then(Line::decode);
        line.ok_or_else(|| io::Error::new(ErrorKind::UnexpectedEof, "no reply: the outcome is unknown; ask again"))
    }
}

/// Prints the answer. Exit codes: 0 if the request is fulfilled, 1 if not, 2 on an error.
pub(crate) async fn print(data: &str, request: &[String], line_max: u64) -> Result<ExitCode, Failure> {
    if request.iter().any(|word| word.is_empty() || word.contains(char::is_whitespace)) {
        return Err("each argument is one word".into());
    }
    let request = request.join(" ");
    // A node that closes with a part of the line unread would make its answer unreadable.
    if request.len() as u64 >= line_max {
        return Err(too_long(line_max).into());
    }
    let mut asking = ask(Path::new(data), &request).await?;
    loop {
        let (text, code) = match asking.next().await? {
            Line::Event(text) => (text, None),
            Line::Yes(text) => (text, Some(0)),
            Line::No(text) => (text, Some(1)),
            Line::Error(text) => return Err(text.into()),
        };
        println!("{text}");
        if let Some(code) = code {
            return Ok(ExitCode::from(code));
        }
    }
}

pub(crate) fn too_long(line_max: u64) -> String {
    format!("a request is one line of at most {line_max} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written_and_a_part_of_one_is_none() {
        for line in [Line::Event("9 done a".into()), Line::Yes(String::new()), Line::No("x".into())] {
            let text = line.encode();
            assert_eq!(Line::decode(&text).as_ref(), Some(&line));
            assert_eq!(Line::decode(&text[..text.len() - 1]), None, "its node ended");
        }
        assert_eq!(Line::decode(&Line::Error("two\nlines".into()).encode()), Some(Line::Error("two lines".into())));
        assert_eq!((Line::decode(""), Line::decode("what now\n")), (None, None));
    }
}
