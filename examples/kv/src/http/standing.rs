//! The proof of a caller that stops counting while it is in use: the certificate of a connection
//! that expires or is revoked, and a token that is removed.
//!
//! A request in execution keeps its answer, because its outcome would be unknown without it. A
//! request that has not arrived completely is refused, an answer without an end ends, and then the
//! connection closes.

use super::{
    Refusal,
    clients::{EXPIRED, Shown},
    credentials::{Credentials, InForce},
    tokens::Token,
};
use axum::body::Bytes;
use std::{
    future::pending,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{sync::watch, time::sleep};

/// The longest sleep until a certificate expires: the clock of the machine may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Whether the certificate of a connection counts. Cheap to clone; clones share the state.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing(watch::Sender<Option<&'static str>>);

impl Standing {
    /// The reason for which it counts no more.
    pub(super) fn lost_for(&self) -> Option<&'static str> {
        *self.0.borrow()
    }

    /// It counts no more, for this reason.
    pub(super) fn lose(&self, why: &'static str) {
        self.0.send_replace(Some(why));
    }

    /// Resolves with the reason, once it counts no more.
    async fn lost(&self) -> &'static str {
        let mut lost = self.0.subscribe();
        loop {
            if let Some(why) = *lost.borrow_and_update() {
                return why;
            }
            // This clone keeps the sender.
            let _ = lost.changed().await;
        }
    }
}

/// Resolves once the certificate of a connection that was accepted under `accepted` counts no more
/// by those in force, or has expired.
pub(super) async fn certificate_lost(
    shown: Option<Shown>,
    accepted: Arc<Credentials>,
    mut now: InForce,
) -> &'static str {
    let Some(shown) = shown else { return pending().await };
    let mut checked = accepted;
    loop {
        let in_force = Arc::clone(&now.borrow_and_update());
        if !Arc::ptr_eq(&checked, &in_force) {
            let check = in_force.tls.as_ref().map(|tls| tls.check(&shown));
            if let Some(Err(why)) = check {
                return why;
            }
            checked = in_force;
        }
        // Its last second counts.
        let end = shown.ends() + Duration::from_secs(1);
        let Ok(left) = end.duration_since(SystemTime::now()) else { return EXPIRED };
        if left.is_zero() {
            return EXPIRED;
        }
        tokio::select! {
            () = changed(&mut now) => {}
            () = sleep(left.min(LOOK_AGAIN)) => {}
        }
    }
}

/// The proof of a request's caller. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) token: Option<Arc<Token>>,
    /// The certificate of its connection, also beside a token: the connection closes with it.
    pub(super) connection: Standing,
    pub(super) now: InForce,
}

impl Proof {
    /// Resolves with the reason once it counts no more.
    pub(super) async fn lost(self) -> &'static str {
        tokio::select! {
            why = self.connection.lost() => why,
            why = token_lost(self.token, self.now) => why,
        }
    }
}

async fn token_lost(token: Option<Arc<Token>>, mut now: InForce) -> &'static str {
    let Some(token) = token else { return pending().await };
    loop {
        if !now.borrow_and_update().tokens.as_ref().is_some_and(|tokens| tokens.have(&token)) {
            return "the token counts no more";
        }
        changed(&mut now).await;
    }
}

/// Resolves at the next change, if there can be one.
async fn changed(now: &mut InForce) {
    if now.changed().await.is_err() {
        pending().await
    }
}

/// The mark of an answer without an end of its own. Once the proof of its caller counts no more, it
/// ends with this last piece, or breaks off if there is none.
#[derive(Clone, Copy)]
pub(super) struct Endless(pub(super) fn(&Refusal) -> Option<Bytes>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tokens::Tokens;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_proof_is_lost_with_its_token_or_with_its_connection() {
        let with = |text: &str| {
            Arc::new(Credentials {
                tokens: Some(Arc::new(Tokens::parse(text).expect("valid"))),
                ..Credentials::default()
            })
        };
        let (a, b) = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
        let (both, other) = (format!("client a {a}\nclient b {b}\n"), format!("client b {b}\n"));
        let (replace, now) = watch::channel(with(&both));
        let held = now.borrow().tokens.as_ref().and_then(|tokens| tokens.holder(a.as_bytes()).cloned());
        let standing = Standing::default();
        let proof = |token: &Option<Arc<Token>>, connection: &Standing| Proof {
            token: token.clone(),
            connection: connection.clone(),
            now: now.clone(),
        };
        let mut by_token = Box::pin(proof(&held, &standing).lost());
        let mut by_connection = Box::pin(proof(&None, &standing).lost());
        assert!(by_token.as_mut().now_or_never().is_none());
        replace.send_replace(with(&both));
        assert!(by_token.as_mut().now_or_never().is_none(), "the same token, read again");
        replace.send_replace(with(&other));
        assert_eq!(by_token.as_mut().now_or_never(), Some("the token counts no more"));
        assert!(by_connection.as_mut().now_or_never().is_none());
        standing.lose("revoked");
        assert_eq!(by_connection.as_mut().now_or_never(), Some("revoked"));

        // The same token with another role proves something else.
        replace.send_replace(with(&both));
        let mut promoted = Box::pin(proof(&held, &Standing::default()).lost());
        assert!(promoted.as_mut().now_or_never().is_none());
        replace.send_replace(with(&format!("operator a {a}\n")));
        assert!(promoted.as_mut().now_or_never().is_some());
    }
}
