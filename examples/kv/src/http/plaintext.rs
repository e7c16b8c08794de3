//! Plain HTTP on an HTTPS port: answered in plain text, because such a client can
//! read nothing else.

use super::messages::ErrorAnswer;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The limits of time and bytes for such a client until the connection is closed.
const FAREWELL: Duration = Duration::from_secs(1);
const DRAINED_BYTES_MAX: u64 = 64 << 10;

/// Whether the first byte belongs to an HTTP method; a TLS handshake starts with 22. Waits
/// for that byte.
pub(super) async fn begins(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)) && first[0].is_ascii_uppercase()
}

/// Answers with the remedy, then reads further input: closing with unread input would
/// lose the answer.
pub(super) async fn turn_away(mut stream: TcpStream) {
    let message = "this port speaks https; use https:// and the cluster's authority (--ca)".to_owned();
    let answer = ErrorAnswer { error: "needs_https".to_owned(), message, index: None };
    let body = serde_json::to_string(&answer).unwrap_or_default() + "\n";
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // The client has read the answer, or the limit has passed.
    let _ = timeout(FAREWELL, stream.write_all((head + &body).as_bytes())).await;
    drain(stream).await;
}

/// Ends the output, and reads further input within the limits.
pub(super) async fn drain(mut stream: TcpStream) {
    let farewell = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(DRAINED_BYTES_MAX), &mut tokio::io::sink()).await
    };
    let _ = timeout(FAREWELL, farewell).await;
}
