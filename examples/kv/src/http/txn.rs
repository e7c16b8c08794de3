//! `POST /v1/txn`: several keys compared, and then several read, set and removed, at one log index.

use super::{
    Api, Refusal,
    body::client_of,
    check_key, check_value, guard,
    headers::MutationHeaders,
    messages::{CasRequest, CompareRequest, OperationAnswer, OperationRequest, TxnAnswer, TxnRequest},
    off_task, stuck,
};
use crate::{
    machine::{Command, Compare, Holds, Operation, OperationReply, Reply, TXN_READ_BYTES_MAX, Txn, TxnReply},
    object,
    octets::Octets,
};
use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{Request, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

/// The maximum number of comparisons, and of operations in each of the two lists.
pub const TXN_ITEMS_MAX: usize = 128;

pub(super) async fn txn(
    State(api): State<Api>,
    headers: MutationHeaders,
    request: Request<Body>,
) -> Result<Response, Refusal> {
    guard::is_json(request.headers())?;
    let (max, client) = (api.value_bytes_max, client_of(request.extensions()));
    let whole = api.bodies.read(request, TxnRequest::body_bytes_max(max)).await?;
    let body = whole.bytes.clone();
    let parse = move || TxnRequest::parse(&body, max).map(|request| (request.txn(), request));
    let (txn, request) = off_task(whole.bytes.len(), parse).await.ok_or_else(stuck)??;
    // Before the transaction takes effect: afterwards nothing could be refused.
    let mut charge = match request.reads() {
        true => api.answers.charge(client, TXN_READ_BYTES_MAX)?,
        false => api.answers.charge(client, 0)?,
    };
    let (index, reply) = api.call(headers, Command::Txn(txn)).await?;
    let (succeeded, results) = match reply {
        Reply::Txn(TxnReply::Done { succeeded, results }) => (succeeded, results),
        Reply::Txn(TxnReply::TooMuchRead) => {
            return Err(Refusal::TooLarge(format!(
                "the values that it reads have more than {TXN_READ_BYTES_MAX} bytes together, so it did nothing; get \
                 fewer, and read large values with GET"
            )));
        }
        _ => return Err(Refusal::OutcomeUnknown),
    };
    let bytes_read = results.iter().map(OperationReply::bytes).sum();
    let made = off_task(bytes_read, move || {
        let asked = if succeeded { &request.success } else { &request.failure };
        let results = asked.iter().zip(results).map(|(asked, result)| answer_of(asked.key(), result));
        serde_json::to_vec(&TxnAnswer { succeeded, index, results: results.collect() })
    });
    let Some(Ok(body)) = made.await else { return Err(Refusal::OutcomeUnknown) };
    charge.settle(body.len());
    Ok(([(CONTENT_TYPE, "application/json")], Body::from(charge.with(body))).into_response())
}

impl TxnRequest {
    /// Parses a body, with values of at most `value_bytes_max` bytes.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] if it is none, [`Refusal::TooLarge`] if a key, a value or a list is
    /// longer.
    pub fn parse(body: &[u8], value_bytes_max: usize) -> Result<Self, Refusal> {
        let request: Self = object::from_json(body).map_err(|error| {
            Refusal::BadRequest(format!(
                "the body is not {{\"compare\":[{{\"key\":K,\"value\":V or null}},…],\"success\":[{{\"put\":{{\"key\":K,\
                 \"value\":V}}}},{{\"delete\":{{\"key\":K}}}},{{\"get\":{{\"key\":K}}}},…],\"failure\":[…]}}: {error}"
            ))
        })?;
        request.check(value_bytes_max)?;
        Ok(request)
    }

    /// The maximum length of a body in bytes: as that of a compare-and-swap, and the names of the
    /// fields around all items.
    #[must_use]
    pub fn body_bytes_max(value_bytes_max: usize) -> usize {
        CasRequest::body_bytes_max(value_bytes_max) + (64 << 10)
    }

    fn check(&self, value_bytes_max: usize) -> Result<(), Refusal> {
        let Self { compare, success, failure } = self;
        for (name, count) in [("compare", compare.len()), ("success", success.len()), ("failure", failure.len())] {
            if count > TXN_ITEMS_MAX {
                return Err(Refusal::TooLarge(format!(
                    "{name} has more than {TXN_ITEMS_MAX} items; use several transactions"
                )));
            }
        }
        if let Some(CompareRequest { key, .. }) =
            compare.iter().find(|compare| compare.value.is_some() == compare.exists.is_some())
        {
            return Err(Refusal::BadRequest(format!(
                "the comparison of {key:?} needs either value, which may be null, or exists"
            )));
        }
        let operations = || success.iter().chain(failure);
        compare
            .iter()
            .map(|compare| &*compare.key)
            .chain(operations().map(OperationRequest::key))
            .try_for_each(check_key)?;
        let compared = compare.iter().filter_map(|compare| compare.value.as_ref()?.as_ref());
        let put = operations().filter_map(|operation| match operation {
            OperationRequest::Put(pair) => Some(&pair.value),
            OperationRequest::Delete(_) | OperationRequest::Get(_) => None,
        });
        compared.chain(put).try_for_each(|Octets(value)| check_value(value.len(), value_bytes_max))
    }

    /// Whether an operation reads a key.
    fn reads(&self) -> bool {
        self.success.iter().chain(&self.failure).any(|operation| matches!(operation, OperationRequest::Get(_)))
    }

    /// The transaction in the form of the service.
    fn txn(&self) -> Txn {
        let compare = self.compare.iter().map(|CompareRequest { key, value, exists }| {
            let holds = match value {
                Some(Some(Octets(value))) => Holds::Value(value[..].into()),
                None if *exists == Some(true) => Holds::Something,
                Some(None) | None => Holds::Nothing,
            };
            Compare { key: key.as_str().into(), holds }
        });
        Txn {
            compare: compare.collect(),
            success: self.success.iter().map(operation_of).collect(),
            failure: self.failure.iter().map(operation_of).collect(),
        }
    }
}

fn operation_of(request: &OperationRequest) -> Operation {
    let key = request.key().into();
    match request {
        OperationRequest::Put(pair) => Operation::Put { key, value: pair.value.0[..].into() },
        OperationRequest::Delete(_) => Operation::Delete { key },
        OperationRequest::Get(_) => Operation::Get { key },
    }
}

fn answer_of(key: &str, reply: OperationReply) -> OperationAnswer {
    let key = key.to_owned();
    match reply {
        OperationReply::Put => OperationAnswer::Put { key },
        OperationReply::Delete { existed } => OperationAnswer::Delete { key, existed },
        OperationReply::Get { value } => {
            OperationAnswer::Get { key, value: value.map(|value| Octets(Bytes::from_owner(value))) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::KEY_BYTES_MAX;

    #[test]
    fn a_body_says_what_to_compare_and_what_to_do() {
        let body = br#"{
            "compare":[{"key":"a","value":"1"},{"key":"b","value":null},{"key":"c","exists":true},{"key":"d","exists":false},
                {"key":"e","value":{"base64":"/wA="}}],
            "success":[{"put":{"key":"a","value":{"base64":"/w=="}}},{"delete":{"key":"b"}}],
            "failure":[{"get":{"key":"a"}}]}"#;
        let request = TxnRequest::parse(body, 2).expect("a transaction");
        let compare = [
            ("a", Holds::Value(b"1".into())),
            ("b", Holds::Nothing),
            ("c", Holds::Something),
            ("d", Holds::Nothing),
            ("e", Holds::Value(b"\xff\0".into())),
        ];
        let expected = Txn {
            compare: compare.map(|(key, holds)| Compare { key: key.into(), holds }).into(),
            success: vec![
                Operation::Put { key: "a".into(), value: b"\xff".into() },
                Operation::Delete { key: "b".into() },
            ],
            failure: vec![Operation::Get { key: "a".into() }],
        };
        assert_eq!(request.txn(), expected);
        assert_eq!(TxnRequest::parse(b"{}", 0).expect("nothing").txn(), Txn::default());
    }

    #[test]
    fn anything_that_only_resembles_one_is_refused() {
        let parse = |body: &str| TxnRequest::parse(body.as_bytes(), 2);
        let large = |body: &str| matches!(parse(body), Err(Refusal::TooLarge(_)));
        let bad = |body: &str| matches!(parse(body), Err(Refusal::BadRequest(_)));
        for body in [
            "",
            "[]",
            "null",
            r#"{"compares":[]}"#,
            r#"{"success":{}}"#,
            r#"{"success":[],"success":[]}"#,
            r#"{"success":["get"]}"#,
            r#"{"success":[["get",{"key":"a"}]]}"#,
            r#"{"success":[{}]}"#,
            r#"{"success":[{"get":["a"]}]}"#,
            r#"{"success":[{"get":"a"}]}"#,
            r#"{"success":[{"get":{"key":"a"},"delete":{"key":"a"}}]}"#,
            r#"{"success":[{"get":{"key":"a","value":"b"}}]}"#,
            r#"{"success":[{"put":{"key":"a"}}]}"#,
            r#"{"success":[{"put":{"key":"a","value":null}}]}"#,
            r#"{"success":[{"put":{"key":"a","value":1}}]}"#,
            r#"{"success":[{"put":{"key":"a","value":{"base64":"?"}}}]}"#,
            r#"{"success":[{"cas":{"key":"a"}}]}"#,
            r#"{"success":[{"put":{"key":"","value":""}}]}"#,
            r#"{"failure":[{"get":{"key":""}}]}"#,
            r#"{"compare":[{"key":"","value":null}]}"#,
            r#"{"compare":[{"key":"a"}]}"#,
            r#"{"compare":[{"value":"a"}]}"#,
            r#"{"compare":[["a","b"]]}"#,
            r#"{"compare":[{"key":"a","value":null,"exists":false}]}"#,
            r#"{"compare":[{"key":"a","exists":1}]}"#,
            r#"{"compare":[{"key":"a","exists":null}]}"#,
            "{\"compare\":[{\"key\":\"\u{1}\",\"value\":\"a\"}]}",
        ] {
            assert!(bad(body), "{body}");
        }
        assert!(large(r#"{"success":[{"put":{"key":"a","value":"123"}}]}"#));
        assert!(large(r#"{"compare":[{"key":"a","value":{"base64":"MTIz"}}]}"#));
        assert!(large(&format!(r#"{{"success":[{{"get":{{"key":"{}"}}}}]}}"#, "k".repeat(KEY_BYTES_MAX + 1))));
        let many = |name: &str, item: &str, count: usize| format!(r#"{{"{name}":[{}]}}"#, vec![item; count].join(","));
        for (name, item) in [
            ("compare", r#"{"key":"a","exists":true}"#),
            ("success", r#"{"get":{"key":"a"}}"#),
            ("failure", r#"{"delete":{"key":"a"}}"#),
        ] {
            assert!(parse(&many(name, item, TXN_ITEMS_MAX)).is_ok(), "{name}");
            assert!(large(&many(name, item, TXN_ITEMS_MAX + 1)), "{name}");
        }
    }
}
