//! The credentials of the HTTP interface, as of one look at their files: the certificate of the
//! server, the authorities of its clients, the tokens, and the names of the server. A listener uses
//! those in force at the moment; replacing them closes nothing that still counts.

use super::{guard::Hosts, tls::Secured, tokens::Tokens};
use std::sync::Arc;
use tokio::sync::watch;

/// The credentials in force, which a reload may replace. Without a sender they stay as they are.
pub type InForce = watch::Receiver<Arc<Credentials>>;

/// One set of credentials. The default has none: plain text, no tokens, no names.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The certificate, and the verification of clients; `None`: plain text.
    pub tls: Option<Arc<Secured>>,
    /// The tokens; `None`: no token counts.
    pub tokens: Option<Arc<Tokens>>,
    /// The names by which clients may address the server.
    pub hosts: Hosts,
}
