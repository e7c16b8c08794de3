//! The certificate of the HTTP server, and its names.

use crate::config::{ConfigError, HttpTls};
use quorate::transport::certificates::check_private;
use std::{net::IpAddr, sync::Arc};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// Loads the certificate and key of the HTTP server.
///
/// # Errors
/// If they cannot be read, do not match, or other users can read the key; the error names the
/// key under `http_tls`.
pub fn tls_acceptor(tls: &HttpTls) -> Result<TlsAcceptor, ConfigError> {
    let (cert, key) = (tls.cert.display(), tls.key.display());
    let chain =
        CertificateDer::pem_file_iter(&tls.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|error| {
            ConfigError::new("http_tls.cert", format_args!("{cert}: {error}"), "name a PEM certificate")
        })?;
    let unusable = |error: &dyn std::fmt::Display| {
        ConfigError::new("http_tls.key", format_args!("{key}: {error}"), "name a PEM private key")
    };
    check_private(&tls.key).map_err(|problem| unusable(&problem))?;
    let private = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| unusable(&error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| {
            let problem = format!("{cert} and {key} do not match: {error}");
            ConfigError::new("http_tls", problem, "name a certificate and its private key")
        })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The host names and addresses in the certificate of the HTTP server.
///
/// # Errors
/// If it cannot be read; the error names the key `http_tls.cert`.
pub fn names_in(tls: &HttpTls) -> Result<Vec<String>, ConfigError> {
    let cert = tls.cert.display();
    let refuse = |error: &dyn std::fmt::Display| {
        ConfigError::new("http_tls.cert", format_args!("{cert}: {error}"), "name a PEM certificate")
    };
    let first = CertificateDer::from_pem_file(&tls.cert).map_err(|error| refuse(&error))?;
    let (_, parsed) = X509Certificate::from_der(&first).map_err(|error| refuse(&error))?;
    let names = parsed.subject_alternative_name().map_err(|error| refuse(&error))?;
    let names = names.map(|names| &names.value.general_names[..]).unwrap_or_default();
    Ok(names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            },
            _ => None,
        })
        .collect())
}
