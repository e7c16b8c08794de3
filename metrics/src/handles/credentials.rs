//! Credentials of a node: their ends, and their reloads while the node runs.

use super::{NodeMetrics, float};
use crate::labels::{CredentialsOf, ReloadResult};

impl NodeMetrics {
    /// Sets the expiry time of the node's own certificate, in seconds since 1970.
    pub fn certificate_expires(&self, of: CredentialsOf, at_unix_seconds: u64) {
        self.inner.credentials.certificate_expiry.of(of).set(float(at_unix_seconds));
    }

    /// Sets the time at which the first of the revocation lists must be replaced, in seconds since
    /// 1970.
    pub fn crl_expires(&self, of: CredentialsOf, at_unix_seconds: u64) {
        self.inner.credentials.crl_expiry.of(of).set(float(at_unix_seconds));
    }

    /// Counts one attempt to read changed credentials. The newest attempt's failure shows until one
    /// succeeds.
    pub fn credentials_reloaded(&self, of: CredentialsOf, result: ReloadResult) {
        self.inner.credentials.reloads.of(of).of(result).increment(1);
        self.inner.credentials.reload_failed.of(of).set(f64::from(u8::from(result == ReloadResult::Failed)));
    }
}
