//! Request bodies, read completely within limits: on one body, on all bodies together, on those of
//! one client, and on the time of arrival.
//!
//! **Only received bytes are charged,** never announced ones, because an announcement costs its
//! sender nothing. One client gets a share of the budget. A part of the budget is reserved for
//! small bodies, so that large ones cannot block them.
//!
//! Answers that take memory of their own have a budget of the same kind, until the connection has
//! sent or dropped their bytes: a client that takes none of them holds its own share only.

use super::{connections::Client, refusal::Refusal};
use axum::{
    body::{Body, Bytes, HttpBody},
    extract::FromRequestParts,
    http::{Extensions, Request, request::Parts},
};
use bytes::BytesMut;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::{
    collections::HashMap,
    convert::Infallible,
    error::Error,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The time limit for a body to arrive.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(30);
/// The maximum length of a small body.
const SMALL_BYTES: usize = 64 << 10;
/// The fractions of the budget: one client's share is 1/`SHARE`, the reserve for
/// small bodies 1/`FOR_SMALL`.
const SHARE: usize = 4;
const FOR_SMALL: usize = 8;

/// The memory budget of all bodies that are being read or executed, or of all answers.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Mutex<Pools>>);

#[derive(Debug)]
struct Pools {
    all: Pool,
    small: Pool,
}

/// A number of bytes, or of other units, of which a client has its share at most.
#[derive(Debug)]
pub(super) struct Pool {
    left: usize,
    share: usize,
    held: HashMap<Client, usize>,
}

impl Pool {
    pub(super) fn of(units: usize, share: usize) -> Self {
        Self { left: units, share, held: HashMap::new() }
    }

    pub(super) fn take(&mut self, client: Client, units: usize) -> bool {
        let held = self.held.get(&client).copied().unwrap_or(0);
        if units > self.left || units > self.share.saturating_sub(held) {
            return false;
        }
        self.left -= units;
        *self.held.entry(client).or_default() += units;
        true
    }

    pub(super) fn give_back(&mut self, client: Client, units: usize) {
        self.left += units;
        if let Some(held) = self.held.get_mut(&client) {
            *held = held.saturating_sub(units);
            if *held == 0 {
                self.held.remove(&client);
            }
        }
    }
}

/// A body and its part of the budget.
#[derive(Debug)]
pub(super) struct Whole {
    /// The received bytes.
    pub(super) bytes: Bytes,
    /// Returned to the budget when the request is done.
    _charge: Charge,
}

/// The part of the budget that one body or answer has taken.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Budget,
    client: Client,
    all: usize,
    small: usize,
}

impl Charge {
    fn add(&mut self, bytes: usize) -> Result<(), Refusal> {
        let mut pools = self.budget.pools();
        if pools.all.take(self.client, bytes) {
            self.all += bytes;
            return Ok(());
        }
        if self.all + self.small + bytes <= SMALL_BYTES && pools.small.take(self.client, bytes) {
            self.small += bytes;
            return Ok(());
        }
        Err(Refusal::Overloaded(Duration::from_secs(1)))
    }

    /// Corrects the charge, once the length is known. More than was charged before is charged as
    /// far as the budget goes: by then the answer is no longer refused.
    pub(super) fn settle(&mut self, bytes: usize) {
        let taken = self.all + self.small;
        if bytes > taken {
            let _ = self.add(bytes - taken);
            return;
        }
        let mut pools = self.budget.pools();
        let all = self.all.min(bytes);
        let small = bytes - all;
        pools.all.give_back(self.client, self.all - all);
        pools.small.give_back(self.client, self.small - small);
        (self.all, self.small) = (all, small);
    }

    /// The bytes of an answer, which give the charge back once they are dropped. The connection
    /// drops a body as soon as it has queued its bytes, and these when they are sent.
    pub(super) fn with(self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Charged { bytes: bytes.into(), _charge: self })
    }
}

struct Charged {
    bytes: Box<[u8]>,
    _charge: Charge,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The client of a request, for its share of a budget.
pub(super) fn client_of(extensions: &Extensions) -> Client {
    extensions.get().copied().unwrap_or(Client::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}

/// The same, as an argument of a handler.
pub(super) struct Caller(pub(super) Client);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(client_of(&parts.extensions)))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut pools = self.budget.pools();
        pools.all.give_back(self.client, self.all);
        pools.small.give_back(self.client, self.small);
    }
}

impl Budget {
    /// A budget of `bytes`; one client's share is a quarter, or `share_min` if that is more.
    #[must_use]
    pub(super) fn of_bytes(bytes: usize, share_min: usize) -> Self {
        let small = bytes / FOR_SMALL;
        let share = (bytes / SHARE).max(share_min);
        Self(Arc::new(Mutex::new(Pools { all: Pool::of(bytes - small, share), small: Pool::of(small, small / SHARE) })))
    }

    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a part for something of this client.
    ///
    /// # Errors
    /// If the budget or the client's share is used up.
    pub(super) fn charge(&self, client: Client, bytes: usize) -> Result<Charge, Refusal> {
        let mut charge = Charge { budget: self.clone(), client, all: 0, small: 0 };
        if bytes > 0 {
            charge.add(bytes)?;
        }
        Ok(charge)
    }

    /// Reads the body of `request`, of at most `max` bytes.
    ///
    /// # Errors
    /// If it is longer (before reading, if the length is announced), if the budget or the client's
    /// share is used up, or if it does not arrive.
    pub(super) async fn read(&self, request: Request<Body>, max: usize) -> Result<Whole, Refusal> {
        let too_large = || Refusal::TooLarge(format!("the body has more than {max} bytes; send less"));
        let client = client_of(request.extensions());
        let body = request.into_body();
        if body.size_hint().lower() > max as u64 {
            return Err(too_large());
        }
        let mut charge = self.charge(client, 0)?;
        let arriving = async {
            let mut body = Limited::new(body, max);
            let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| match is_length(&*error) {
                    true => too_large(),
                    false => Refusal::BadRequest(format!("the body did not arrive: {error}")),
                })?;
                let Ok(piece) = frame.into_data() else { continue };
                charge.add(piece.len())?;
                // Most bodies arrive in one piece, which is used without copying.
                if first.is_empty() && rest.is_empty() {
                    first = piece;
                    continue;
                }
                rest.extend_from_slice(&std::mem::take(&mut first));
                rest.extend_from_slice(&piece);
            }
            Ok::<_, Refusal>(if rest.is_empty() { first } else { rest.freeze() })
        };
        match tokio::time::timeout(ARRIVAL_LIMIT, arriving).await {
            Ok(arrived) => Ok(Whole { bytes: arrived?, _charge: charge }),
            Err(_) => Err(Refusal::BadRequest(format!("the body did not arrive within {ARRIVAL_LIMIT:?}"))),
        }
    }
}

fn is_length(error: &(dyn Error + 'static)) -> bool {
    error.is::<LengthLimitError>() || error.source().is_some_and(is_length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use hyper::body::Frame;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn a_body_of_just_the_limit_is_read_and_one_byte_more_is_refused() {
        let budget = Budget::of_bytes(1000, 1000);
        assert_eq!(budget.read(announced(10), 10).await.expect("fits").bytes.len(), 10);
        assert!(matches!(budget.read(announced(11), 10).await, Err(Refusal::TooLarge(_))));
        for pieces in [vec![11], vec![5, 6], vec![1; 11]] {
            assert!(matches!(budget.read(sent_in(&pieces), 10).await, Err(Refusal::TooLarge(_))));
        }
        for pieces in [vec![10], vec![4, 6], vec![1; 10]] {
            assert_eq!(budget.read(sent_in(&pieces), 10).await.expect("fits").bytes, vec![7; 10]);
        }
    }

    #[tokio::test]
    async fn an_answer_is_charged_until_it_is_sent_or_dropped() {
        let budget = Budget::of_bytes(8 << 20, 8 << 20);
        let client = Client::from(IpAddr::from([10, 0, 0, 2]));
        let mut charges: Vec<_> = (0..7).map(|_| budget.charge(client, 1 << 20).expect("fits")).collect();
        assert_eq!(budget.charge(client, 1 << 20).expect_err("full"), Refusal::Overloaded(Duration::from_secs(1)));
        let mut last = charges.pop().expect("one");
        last.settle(1 << 19);
        assert!(budget.charge(client, 1 << 20).is_err() && budget.charge(client, 1 << 19).is_ok());
        last.settle(100 << 20);
        assert!(budget.charge(client, 1 << 20).is_err());
        last.settle(10);
        let mut body = Body::from(last.with(vec![7; 10]));
        assert_eq!(body.size_hint().exact(), Some(10));
        assert!(budget.charge(client, 1 << 20).is_err(), "it is not sent");
        let bytes = body.frame().await.expect("one").expect("it is whole").into_data().expect("bytes");
        drop(body);
        assert_eq!(bytes, vec![7; 10]);
        assert!(budget.charge(client, 1 << 20).is_err(), "the connection has it queued");
        drop(bytes);
        assert!(budget.charge(client, 1 << 20).is_ok());
        drop(charges);
        assert!(budget.charge(client, 7 << 20).is_ok(), "all is given back");
    }

    #[tokio::test]
    async fn only_what_has_arrived_is_charged_and_it_is_given_back() {
        let budget = Budget::of_bytes(8 << 20, 8 << 20);
        let (more, request) = arriving(1);
        let mut silent = Box::pin(budget.read(request, 1 << 30));
        assert!(silent.as_mut().now_or_never().is_none());
        more.send(vec![7]).expect("it is being read");
        assert!(silent.as_mut().now_or_never().is_none(), "it is not whole");
        let whole = budget.read(announced(6 << 20), 8 << 20).await.expect("a byte is all that is taken");
        assert!(matches!(budget.read(announced(2 << 20), 8 << 20).await, Err(Refusal::Overloaded(_))));
        drop((whole, silent));
        assert!(budget.read(announced(7 << 20), 8 << 20).await.is_ok(), "all is given back");
    }

    #[tokio::test]
    async fn small_bodies_pass_while_large_ones_fill_the_budget() {
        let budget = Budget::of_bytes(8 << 20, 8 << 20);
        let held = budget.read(announced(7 << 20), 8 << 20).await.expect("fits");
        assert!(matches!(budget.read(announced(SMALL_BYTES + 1), 1 << 20).await, Err(Refusal::Overloaded(_))));
        let small = budget.read(announced(SMALL_BYTES), 1 << 20).await.expect("it passes");
        drop((held, small));
        assert!(budget.read(announced(7 << 20), 8 << 20).await.is_ok());
    }

    #[tokio::test]
    async fn one_client_has_no_more_than_its_share() {
        let budget = Budget::of_bytes(8 << 20, 1);
        let greedy = budget.read(announced(2 << 20), 8 << 20).await.expect("its share");
        assert!(matches!(budget.read(announced(1 << 20), 8 << 20).await, Err(Refusal::Overloaded(_))));
        let mut other = announced(1 << 20);
        other.extensions_mut().insert(Client::from(IpAddr::from([10, 0, 0, 2])));
        budget.read(other, 8 << 20).await.expect("another client's share");
        drop(greedy);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_in_time_is_refused() {
        let (_more, request) = arriving(1);
        let refused = Budget::of_bytes(1000, 1000).read(request, 1000).await;
        assert!(matches!(refused, Err(Refusal::BadRequest(why)) if why.contains("did not arrive within 30s")));
    }

    fn announced(bytes: usize) -> Request<Body> {
        Request::new(Body::from(vec![7; bytes]))
    }

    /// A body without an announced length, in pieces of these lengths.
    fn sent_in(pieces: &[usize]) -> Request<Body> {
        let (more, request) = arriving(0);
        pieces.iter().for_each(|bytes| more.send(vec![7; *bytes]).expect("a body"));
        request
    }

    /// A body that starts with this many bytes and continues with the pieces that the test sends.
    fn arriving(bytes: usize) -> (mpsc::UnboundedSender<Vec<u8>>, Request<Body>) {
        struct Pieces(mpsc::UnboundedReceiver<Vec<u8>>);
        impl HttpBody for Pieces {
            type Data = Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
                self.0.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes.into()))))
            }
        }
        let (more, pieces) = mpsc::unbounded_channel();
        if bytes > 0 {
            more.send(vec![7; bytes]).expect("a body");
        }
        (more, Request::new(Body::new(Pieces(pieces))))
    }
}
