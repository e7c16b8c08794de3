//! The live page's data, `GET /live`, and going on at another member.
//!
//! The members' addresses come with the data, so a stream that began at one endpoint goes on at any
//! member. An address that was learned gets the token only where a given one would.

use super::{ApiRequest, Client, ClientError, connection::Endpoint, events::Events};
use crate::{http::messages::ErrorAnswer, object};
use hyper::Method;
use serde_json::Value;
use std::time::Duration;
use tokio::time::sleep;

/// A node that says nothing for so long is left for another one. It says something every 5 s.
const SILENCE_MAX: Duration = Duration::from_secs(7);
/// The pause after all endpoints failed once; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The most addresses that are learned.
const LEARNED_MAX: usize = 64;

/// A stream of the live page's data, from one node after the other.
#[derive(Debug)]
pub struct Live {
    client: Client,
    /// The number of endpoints that were given; those after them were learned.
    given: usize,
    learned: Vec<String>,
    arriving: Option<Events>,
    /// The attempts without data since the last data.
    failures: usize,
}

/// A step of a stream.
#[derive(Clone, PartialEq, Debug)]
pub enum LiveNews {
    /// A node answers; a snapshot follows.
    Connected {
        /// Its URL.
        endpoint: String,
    },
    /// A message of the node.
    Message(LiveMessage),
    /// The node is lost, or did not answer.
    Lost {
        /// Its URL.
        endpoint: String,
        /// The cause in words.
        cause: String,
        /// The URL that is tried next.
        next: String,
    },
}

/// A message of the live page's data; see [`live`](crate::live).
#[derive(Clone, PartialEq, Debug)]
pub enum LiveMessage {
    /// The whole page.
    Snapshot(Value),
    /// A merge patch of the page.
    Delta(Value),
    /// An event of a node.
    Event(Value),
    /// Events were lost on the way to the node that serves.
    Lost(Value),
    /// Messages were lost on the way here; a snapshot follows.
    Gap(Value),
}

impl Live {
    /// The stream of the first endpoint that answers.
    ///
    /// # Errors
    /// See [`ClientError`]: that of the last endpoint, if none answers.
    pub async fn open(client: Client) -> Result<Self, ClientError> {
        let given = client.endpoints.len();
        let mut live = Self { client, given, learned: Vec::new(), arriving: None, failures: 0 };
        for attempt in 1.. {
            match live.connect().await {
                Ok(()) => break,
                Err(error) if attempt < given && error.may_know_later() => live.move_on(),
                Err(error) => return Err(error),
            }
        }
        Ok(live)
    }

    /// The URL of the node that serves, or is tried.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.client.endpoints[self.client.current].to_string()
    }

    /// The next step. A node that is lost is followed by the next one, without an end. A call that
    /// is dropped loses no message.
    ///
    /// # Errors
    /// See [`ClientError`]; a refusal of an endpoint that was given, except one that may pass.
    pub async fn next(&mut self) -> Result<LiveNews, ClientError> {
        let error = match &mut self.arriving {
            None => {
                sleep(pause(self.failures, self.client.endpoints.len())).await;
                match self.connect().await {
                    Ok(()) => return Ok(LiveNews::Connected { endpoint: self.endpoint() }),
                    Err(error) => error,
                }
            }
            Some(arriving) => match message(arriving).await {
                Ok(message) => {
                    self.failures = 0;
                    return Ok(LiveNews::Message(message));
                }
                Err(error) => error,
            },
        };
        self.arriving = None;
        // A member may serve the data elsewhere, for operators alone, or to other callers.
        let is_given = self.client.current < self.given;
        if is_given && !error.may_know_later() {
            return Err(error);
        }
        self.failures = self.failures.saturating_add(1);
        let endpoint = self.endpoint();
        self.move_on();
        Ok(LiveNews::Lost { endpoint, cause: cause(&error), next: self.endpoint() })
    }

    /// Takes over the members' URLs, for the time when the present node is lost. A URL is left out
    /// that is less well protected than those that were given.
    pub fn learn(&mut self, urls: &[&str]) {
        let urls = &urls[..urls.len().min(LEARNED_MAX)];
        if self.learned == urls {
            return;
        }
        self.learned = urls.iter().map(|&url| url.to_owned()).collect();
        let client = &mut self.client;
        let learned: Vec<_> = client.endpoints.drain(self.given..).collect();
        let is_secret =
            client.endpoints.iter().any(Endpoint::is_https) || (client.token.is_some() && !client.allows_plaintext);
        for url in urls {
            let Ok(endpoint) = Endpoint::parse(url, &client.trust) else { continue };
            let is_known = client.endpoints.iter().any(|known| known.address() == endpoint.address());
            if !(is_known || is_secret && endpoint.is_exposed()) {
                client.endpoints.push(endpoint);
            }
        }
        if let Some(served) = client.current.checked_sub(self.given) {
            let Some(served) = learned.into_iter().nth(served) else { return };
            let same = client.endpoints.iter().position(|known| known.address() == served.address());
            client.current = same.unwrap_or(client.endpoints.len());
            if same.is_none() {
                client.endpoints.push(served);
            }
        }
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        let ask = ApiRequest::new(Method::GET, "/live".to_owned());
        let client = &self.client;
        let arriving = client.download_from(client.current, &ask, client.limit, SILENCE_MAX).await?;
        self.arriving = Some(Events::of(arriving));
        Ok(())
    }

    fn move_on(&mut self) {
        self.client.current = (self.client.current + 1) % self.client.endpoints.len();
    }
}

/// The next message with data. Of ballots, events say the same.
async fn message(arriving: &mut Events) -> Result<LiveMessage, ClientError> {
    loop {
        let message = arriving.next().await?;
        let (Some(event), Some(data)) = (message.event, message.data) else { continue };
        let unreadable = |cause: String| ClientError::Unreadable { endpoint: arriving.endpoint().to_owned(), cause };
        if event == "error" {
            let answer = object::from_json::<ErrorAnswer>(data.as_bytes());
            let ErrorAnswer { error: code, message, .. } = answer.map_err(|error| unreadable(error.to_string()))?;
            // As if it were the answer to the request.
            let status = if code == "unauthenticated" { 401 } else { 403 };
            return Err(ClientError::Refused { endpoint: arriving.endpoint().to_owned(), code, status, message });
        }
        let data = serde_json::from_str(&data).map_err(|error| unreadable(error.to_string()))?;
        return Ok(match &*event {
            "snapshot" => LiveMessage::Snapshot(data),
            "delta" => LiveMessage::Delta(data),
            "event" => LiveMessage::Event(data),
            "lost" => LiveMessage::Lost(data),
            "gap" => LiveMessage::Gap(data),
            _ => continue,
        });
    }
}

/// The pause before an attempt: none until all endpoints failed once.
fn pause(failures: usize, endpoints: usize) -> Duration {
    let rounds = failures / endpoints.max(1);
    if rounds == 0 || !failures.is_multiple_of(endpoints.max(1)) {
        return Duration::ZERO;
    }
    PAUSE_MAX.min(PAUSE_MIN * (1 << (rounds - 1).min(8)))
}

/// An error without its endpoint and without the advice for a command that ends.
fn cause(error: &ClientError) -> String {
    match error {
        ClientError::Unreachable { cause, .. } | ClientError::Mismatch { cause, .. } => cause.clone(),
        ClientError::Refused { code, message, .. } => format!("{code}: {message}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Token, Trust};

    #[test]
    fn members_are_tried_after_the_given_endpoints_and_the_one_that_serves_stays() {
        let mut live = live(&["http://127.0.0.1:1"], None);
        live.learn(&["http://127.0.0.1:1", "http://127.0.0.1:2", "nonsense", "http://127.0.0.1:3"]);
        assert_eq!(urls(&live), ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"]);
        live.client.current = 2;
        live.learn(&["http://127.0.0.1:4"]);
        assert_eq!(urls(&live), ["http://127.0.0.1:1", "http://127.0.0.1:4", "http://127.0.0.1:3"]);
        assert_eq!(live.endpoint(), "http://127.0.0.1:3");
        live.move_on();
        assert_eq!(live.endpoint(), "http://127.0.0.1:1");
    }

    #[test]
    fn a_member_s_address_gets_no_token_that_others_could_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("token");
        std::fs::write(&file, "secret").expect("written");
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("changed");
        let token = || Some(Token::read(&file).expect("a token"));
        let learned = ["http://10.0.0.2:1", "http://127.0.0.1:2"];
        for (token, allows_plaintext, expected) in [(None, false, 3), (token(), false, 2), (token(), true, 3)] {
            let mut live = live(&["http://127.0.0.1:1"], token);
            live.client.allows_plaintext = allows_plaintext;
            live.learn(&learned);
            assert_eq!(live.client.endpoints.len(), expected, "{:?}", urls(&live));
        }
    }

    #[test]
    fn all_endpoints_are_tried_at_once_and_then_with_a_growing_pause() {
        let ms = |failures| pause(failures, 2).as_millis();
        assert_eq!([0, 1, 2, 3, 4, 6, 8, 400].map(ms), [0, 0, 250, 0, 500, 1_000, 2_000, 2_000]);
    }

    fn live(given: &[&str], token: Option<Token>) -> Live {
        let urls: Vec<_> = given.iter().map(|&url| url.to_owned()).collect();
        let client = Client { token, ..Client::new(&urls, &Trust::none()).expect("valid") };
        Live { given: urls.len(), client, learned: Vec::new(), arriving: None, failures: 0 }
    }

    fn urls(live: &Live) -> Vec<String> {
        live.client.endpoints.iter().map(ToString::to_string).collect()
    }
}
