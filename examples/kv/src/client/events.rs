//! Server-sent events: the messages of an answer that does not end by itself.

use super::{ClientError, Download};

/// The longest message: a state of the live page with its history is far shorter, and the changes
/// of a watched entry have no large values.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The messages of an answer, as they arrive.
#[derive(Debug)]
pub(super) struct Events {
    arriving: Download,
    /// The bytes of messages that are not complete or not taken yet.
    received: Vec<u8>,
}

/// The fields of a message. A comment, which only shows that the connection works, has none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Message {
    pub(super) id: Option<String>,
    pub(super) event: Option<String>,
    pub(super) data: Option<String>,
}

impl Events {
    pub(super) fn of(arriving: Download) -> Self {
        Self { arriving, received: Vec::new() }
    }

    /// The URL of the endpoint that answers.
    pub(super) fn endpoint(&self) -> &str {
        self.arriving.endpoint()
    }

    /// The next message. An answer that ends without a reason is an error. A call that is dropped
    /// loses nothing.
    pub(super) async fn next(&mut self) -> Result<Message, ClientError> {
        let unreadable = |of: &Self, cause: &str| {
            let endpoint = of.arriving.endpoint().to_owned();
            ClientError::Unreadable { endpoint, cause: cause.to_owned() }
        };
        loop {
            if let Some(end) = self.received.windows(2).position(|two| two == b"\n\n") {
                let message: Vec<u8> = self.received.drain(..end + 2).collect();
                return Message::parse(&message).ok_or_else(|| unreadable(self, "a message is not UTF-8"));
            }
            let Some(piece) = self.arriving.next().await? else {
                let (endpoint, cause) = (self.arriving.endpoint().to_owned(), "the answer ended".to_owned());
                return Err(ClientError::Unreachable { endpoint, cause });
            };
            if self.received.len() + piece.len() > MESSAGE_BYTES_MAX {
                return Err(unreadable(self, "a message is too long"));
            }
            self.received.extend_from_slice(&piece);
        }
    }
}

impl Message {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut message = Self::default();
        for line in std::str::from_utf8(bytes).ok()?.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => message.id = Some(id.to_owned()),
                Some(("event", event)) => message.event = Some(event.to_owned()),
                Some(("data", data)) => message.data = Some(data.to_owned()),
                _ => {}
            }
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_fields_that_are_known_and_a_comment_has_none() {
        let text = |text: &str| Some(text.to_owned());
        let whole = Message::parse(b"id: 7\nevent: delta\nretry: 1000\ndata: {\"a\": 1}\n\n").expect("UTF-8");
        assert_eq!(whole, Message { id: text("7"), event: text("delta"), data: text("{\"a\": 1}") });
        assert_eq!(Message::parse(b":\n\n"), Some(Message::default()));
        assert_eq!(Message::parse(b"data: \xff\n\n"), None);
    }
}
