//! Request bodies, read whole within bounds: of one body, of all bodies at once, and of the time that one takes.

use super::refusal::Refusal;
use axum::{
    body::{Body, Bytes, HttpBody},
    http::Request,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::{error::Error, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a body may take to arrive.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(30);

/// What all bodies that are being read or carried out may take in memory together.
#[derive(Clone, Debug)]
pub(super) struct Credit(Arc<Semaphore>);

/// A body, and the credit that it holds.
#[derive(Debug)]
pub(super) struct Whole {
    /// What was sent.
    pub(super) bytes: Bytes,
    /// Given back when the request is done.
    _credit: OwnedSemaphorePermit,
}

impl Credit {
    /// This many bytes.
    #[must_use]
    pub(super) fn of_bytes(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// Reads the body of `request`, which may have `max` bytes.
    ///
    /// # Errors
    /// If it is longer (before reading it, where its length is announced), if too much is being read already, or if it
    /// does not arrive.
    pub(super) async fn read(&self, request: Request<Body>, max: usize) -> Result<Whole, Refusal> {
        let too_large = || Refusal::TooLarge(format!("the body has more than {max} bytes; send less"));
        let body = request.into_body();
        if body.size_hint().lower() > max as u64 {
            return Err(too_large());
        }
        // A body of unannounced length may become the longest one.
        let most = body.size_hint().upper().map_or(max, |upper| usize::try_from(upper).unwrap_or(max)).min(max);
        let weight = u32::try_from(most).unwrap_or(u32::MAX);
        let overloaded = |_| Refusal::Overloaded(Duration::from_secs(1));
        let credit = Arc::clone(&self.0).try_acquire_many_owned(weight).map_err(overloaded)?;
        let arrived = tokio::time::timeout(ARRIVAL_LIMIT, Limited::new(body, max).collect()).await;
        match arrived {
            Ok(Ok(collected)) => Ok(Whole { bytes: collected.to_bytes(), _credit: credit }),
            Ok(Err(error)) if is_length(&*error) => Err(too_large()),
            Ok(Err(error)) => Err(Refusal::BadRequest(format!("the body did not arrive: {error}"))),
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

    #[tokio::test]
    async fn a_body_of_just_the_limit_is_read_and_one_byte_more_is_refused() {
        let credit = Credit::of_bytes(1000);
        assert_eq!(credit.read(announced(10), 10).await.expect("fits").bytes.len(), 10);
        assert!(matches!(credit.read(announced(11), 10).await, Err(Refusal::TooLarge(_))));
        assert!(matches!(credit.read(unannounced(11), 10).await, Err(Refusal::TooLarge(_))));
        assert_eq!(credit.read(unannounced(10), 10).await.expect("fits").bytes.len(), 10);
    }

    #[tokio::test]
    async fn bodies_beyond_the_credit_are_overload_until_others_are_done() {
        let credit = Credit::of_bytes(10);
        let held = credit.read(announced(6), 10).await.expect("fits");
        assert!(matches!(credit.read(announced(5), 10).await, Err(Refusal::Overloaded(_))));
        assert!(matches!(credit.read(unannounced(1), 10).await, Err(Refusal::Overloaded(_))));
        assert!(credit.read(announced(4), 10).await.is_ok());
        drop(held);
        assert!(credit.read(unannounced(1), 10).await.is_ok());
    }

    fn announced(bytes: usize) -> Request<Body> {
        Request::new(Body::from(vec![0; bytes]))
    }

    fn unannounced(bytes: usize) -> Request<Body> {
        struct Unsized(Option<Bytes>);
        impl HttpBody for Unsized {
            type Data = Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<http_body_util_frame::Frame<Bytes>, Self::Error>>> {
                std::task::Poll::Ready(self.0.take().map(|bytes| Ok(http_body_util_frame::Frame::data(bytes))))
            }
        }
        use hyper::body as http_body_util_frame;
        Request::new(Body::new(Unsized(Some(Bytes::from(vec![0; bytes])))))
    }
}
