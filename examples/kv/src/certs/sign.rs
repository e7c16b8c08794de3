//! `certs sign`: shows a request, and certifies it where the authority is.
//!
//! A request proves that its author has the key, and not that the names are due to that author.
//! So the names and the key's fingerprint are shown, to be compared with the output of
//! `certs request`; without `--out` nothing else happens. With it, `--fingerprint` names the key
//! that the holder read out: the file may have been replaced since it was shown.

use super::{CertsError, DAYS, days, issued, lock, time};
use quorate::transport::certificates::{Authority, CERTIFICATE_MODE, CertificateError, Request, write_new};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, time::Duration};

/// The command's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The directory with the authority
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// The request, made by `certs request`
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// The file for the certificate; without it the request is checked and shown, and not signed
    #[arg(long, value_name = "FILE", requires = "fingerprint")]
    out: Option<PathBuf>,
    /// The fingerprint of the holder's key, as `certs request` printed it; no other key is signed
    #[arg(long, value_name = "SHA256", value_parser = fingerprint)]
    fingerprint: Option<String>,
    /// The days that the certificate lasts; not beyond the authority's own end
    #[arg(long, default_value = DAYS, value_parser = days)]
    days: Duration,
}

/// Signs; returns the result for people and for machines.
///
/// # Errors
/// If the request asks for anything but one name of the authority's cluster and a node's hosts, or
/// its signature is not by its key, or the key is not that of `--fingerprint`, or a file cannot be
/// read, exists or cannot be written.
pub(super) fn run(args: &Args) -> Result<(String, Value), CertsError> {
    let authority = Authority::load(&args.ca)?.issuing_for(args.days);
    let failed = |source| CertificateError::Io { path: args.request.clone(), source };
    let request = Request::parse(&fs::read_to_string(&args.request).map_err(failed)?)?;
    let fingerprint = request.fingerprint();
    if let Some(expected) = args.fingerprint.as_ref().filter(|expected| **expected != fingerprint) {
        return Err(CertsError::OtherKey { request: args.request.clone(), is: fingerprint, asked: expected.clone() });
    }
    let certificate = authority.sign(&request)?;
    let (serial, known) = issued::read_back(&authority, &args.request, &certificate)?;
    let (subject, until, signed) = (request.subject(), time(known.ends), serial.to_string());
    let holder = subject.identity.to_string();
    let hosts = if subject.hosts.is_empty() { "none".to_owned() } else { subject.hosts.join(", ") };
    let done = match &args.out {
        Some(out) => {
            let _lock = lock(&args.ca)?;
            issued::record(&args.ca, &[(serial, known)])?;
            write_new(out, &certificate, CERTIFICATE_MODE)?;
            format!("signed: {}, serial {signed}", out.display())
        }
        None => "not signed: give --out FILE and --fingerprint SHA256".to_owned(),
    };
    let cluster = &subject.identity.cluster;
    Ok((
        format!("{holder} of cluster {cluster}\nhosts: {hosts}\nkey sha256:{fingerprint}\nuntil {until}\n{done}"),
        json!({
            "holder": holder,
            "cluster": cluster,
            "hosts": subject.hosts,
            "key_sha256": fingerprint,
            "until": until,
            "file": args.out,
            "serial": args.out.as_ref().map(|_| signed),
        }),
    ))
}

/// Of the forms in which it is printed: with `sha256:` in front or not.
fn fingerprint(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    let is_whole = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_whole.then_some(digits).ok_or_else(|| "give all 64 hexadecimal digits that `certs request` printed".to_owned())
}
