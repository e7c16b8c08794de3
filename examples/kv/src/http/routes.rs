//! The paths of the HTTP interface.

use super::{
    Api, Refusal,
    access::{Denials, authorize},
    backup, cas, delete, health, list, live, members, method_not_allowed, metrics, put, read, snapshot, status, strict,
    txn, watch,
};
use crate::live::document::document;
use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};

impl Api {
    /// The router with all paths. A path is served only for the methods that
    /// [`ENDPOINTS`](super::ENDPOINTS) lists, to callers with the permission.
    pub fn router(self) -> Router {
        let key = get(read).put(put).delete(delete).fallback(method_not_allowed);
        Router::new()
            .route("/v1/kv", get(list::list).fallback(method_not_allowed))
            .route("/v1/kv/{key}", key)
            .route("/v1/kv/{key}/cas", post(cas).fallback(method_not_allowed))
            .route("/v1/txn", post(txn::txn).fallback(method_not_allowed))
            .route("/v1/watch", get(watch::watch).fallback(method_not_allowed))
            .route("/v1/status", get(status).fallback(method_not_allowed))
            .route("/v1/members", get(members::list).post(members::add).put(members::set).fallback(method_not_allowed))
            .route("/v1/members/{id}", axum::routing::delete(members::remove).fallback(method_not_allowed))
            .route("/v1/members/{id}/addr", axum::routing::put(members::move_to).fallback(method_not_allowed))
            .route("/v1/members/{id}/metadata", axum::routing::patch(members::describe).fallback(method_not_allowed))
            .route("/v1/members/{id}/promote", post(members::promote).fallback(method_not_allowed))
            .route("/v1/transfer", post(members::transfer).fallback(method_not_allowed))
            .route("/v1/snapshot", post(snapshot).fallback(method_not_allowed))
            .route("/v1/backup", get(backup::backup).fallback(method_not_allowed))
            .route("/", get(document).fallback(method_not_allowed))
            .route("/live", get(live::live).options(live::preflight).fallback(method_not_allowed))
            .route("/livez", get(health::livez).fallback(method_not_allowed))
            .route("/readyz", get(health::readyz).fallback(method_not_allowed))
            .route("/metrics", get(metrics).fallback(method_not_allowed))
            .fallback(|| async { Refusal::NotFound("no such path".to_owned()) })
            .layer(from_fn(strict::refuse_unknown))
            .layer(from_fn_with_state(Denials::default(), authorize))
            .with_state(self)
    }
}
