//! Watches: the messages of `GET /v1/watch`, and going on at another endpoint.

use super::{
    ANSWER_LIMIT, ApiRequest, Client, ClientError, PAUSE, SEGMENT,
    events::{Events, Message},
};
use crate::{
    http::messages::{ErrorAnswer, WatchAnswer},
    object,
};
use hyper::Method;
use percent_encoding::utf8_percent_encode;
use quorate::Index;
use tokio::time::{Instant, sleep};

/// The keys of a watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Watched {
    /// The key of exactly this name.
    Key(String),
    /// All keys that begin with this.
    Prefix(String),
}

/// A watch to begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchRequest {
    /// The keys to watch.
    pub watched: Watched,
    /// The index after which it begins; `None`: all that the node has applied.
    pub after: Option<Index>,
}

/// The changes of a watch, as they arrive.
#[derive(Debug)]
pub struct Watching<'a> {
    client: &'a mut Client,
    request: WatchRequest,
    arriving: Option<Events>,
}

impl Client {
    /// Watches keys. It begins at once, so that no later change is missed, also if the next
    /// endpoint must go on.
    ///
    /// # Errors
    /// See [`ClientError`]; `gone` if changes after the index are not kept any more.
    pub async fn watch(&mut self, request: WatchRequest) -> Result<Watching<'_>, ClientError> {
        let mut watching = Watching { client: self, request, arriving: None };
        watching.begin().await?;
        while watching.request.after.is_none() {
            let message = watching.message().await?;
            watching.take(&message)?;
        }
        Ok(watching)
    }
}

impl Watching<'_> {
    /// The index to go on after.
    #[must_use]
    pub fn position(&self) -> Option<Index> {
        self.request.after
    }

    /// The changes of the next entry. If the endpoint fails, the watch goes on at the next one, for
    /// as long as the client waits for an answer.
    ///
    /// # Errors
    /// See [`ClientError`]; `gone` if the next changes are not kept any more.
    pub async fn next(&mut self) -> Result<WatchAnswer, ClientError> {
        let mut deadline = None;
        loop {
            let error = match self.try_next().await {
                Ok(Some(changes)) => return Ok(changes),
                Ok(None) => {
                    deadline = None;
                    continue;
                }
                Err(error) => error,
            };
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.client.limit.max(ANSWER_LIMIT));
            if !error.may_know_later() || Instant::now() > deadline {
                return Err(error);
            }
            self.arriving = None;
            sleep(PAUSE).await;
            self.client.current = (self.client.current + 1) % self.client.endpoints.len();
        }
    }

    /// The changes of the next message, `None` if it has none; of the present endpoint, unless
    /// there is none.
    async fn try_next(&mut self) -> Result<Option<WatchAnswer>, ClientError> {
        if self.arriving.is_none() {
            self.begin().await?;
        }
        let message = self.message().await?;
        self.take(&message)
    }

    async fn begin(&mut self) -> Result<(), ClientError> {
        let limit = self.client.limit.max(ANSWER_LIMIT);
        self.arriving = Some(Events::of(self.client.download(&self.request.ask(), limit, limit).await?));
        Ok(())
    }

    async fn message(&mut self) -> Result<Message, ClientError> {
        match &mut self.arriving {
            Some(arriving) => arriving.next().await,
            None => Err(ClientError::Unreachable { endpoint: self.endpoint(), cause: "the answer ended".to_owned() }),
        }
    }

    /// Moves to the position of a message, and returns its changes.
    fn take(&mut self, message: &Message) -> Result<Option<WatchAnswer>, ClientError> {
        let id = message.id.as_ref().and_then(|index| index.parse().ok().map(Index));
        let is_error = message.event.as_deref() == Some("error");
        let changes = match message.data.as_ref().map(String::as_bytes) {
            None => None,
            Some(json) if is_error => {
                let Ok(ErrorAnswer { error: code, message, .. }) = object::from_json(json) else {
                    return Err(self.unreadable("the reason of an end is not understood"));
                };
                self.arriving = None;
                // As if it were the answer to the request.
                let status = if code == "gone" { 410 } else { 503 };
                return Err(ClientError::Refused { endpoint: self.endpoint(), code, status, message });
            }
            Some(json) => match object::from_json(json) {
                Ok(changes) => Some(changes),
                Err(error) => return Err(self.unreadable(&error.to_string())),
            },
        };
        self.request.after = id.or(self.request.after);
        Ok(changes)
    }

    fn unreadable(&self, cause: &str) -> ClientError {
        ClientError::Unreadable { endpoint: self.endpoint(), cause: cause.to_owned() }
    }

    fn endpoint(&self) -> String {
        self.client.endpoints[self.client.current].to_string()
    }
}

impl WatchRequest {
    fn ask(&self) -> ApiRequest {
        let (name, text) = match &self.watched {
            Watched::Key(key) => ("key", key),
            Watched::Prefix(prefix) => ("prefix", prefix),
        };
        let after = self.after.map_or(String::new(), |after| format!("&after={after}"));
        ApiRequest::new(Method::GET, format!("/v1/watch?{name}={}{after}", utf8_percent_encode(text, SEGMENT)))
    }
}
