//! The requests of operators: membership changes, metadata of members, and leadership transfer.

use super::{Api, Refusal, access::Asked, messages::*};
use crate::{config::is_host_and_port, object};
use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::Request,
};
use quorate::{
    Change, ChangeError, ChangeRefused, Member, MemberMetadata, MetadataUpdate, NodeId, Status, TransferError, address,
};
use serde::{Deserialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt::Debug};

/// The maximum length of a body: a list of the maximum number of members.
const BODY_BYTES_MAX: usize = 64 << 10;

/// `GET /v1/members`
pub(super) async fn list(State(api): State<Api>) -> Json<MembersAnswer> {
    let status = api.node.status().borrow().clone();
    Json(answer_of(&status))
}

fn answer_of(status: &Status) -> MembersAnswer {
    let member = |id: &NodeId, role: &str| MemberAnswer {
        id: *id,
        addr: status.addresses.get(id).cloned(),
        role: role.to_owned(),
        witness: status.witness == Some(*id),
        client_addr: status.metadata.get(id).and_then(|of| of.client_address()).map(ToOwned::to_owned),
        labels: status.metadata.get(id).map(|of| of.labels().clone()).unwrap_or_default(),
    };
    let voters = status.voters.iter().map(|id| member(id, "voter"));
    let members = voters.chain(status.learners.iter().map(|id| member(id, "learner"))).collect();
    MembersAnswer { index: status.membership_index, settled: status.is_settled, members }
}

pub(super) fn client_addrs(metadata: &BTreeMap<NodeId, MemberMetadata>) -> BTreeMap<NodeId, String> {
    metadata.iter().filter_map(|(id, of)| Some((*id, of.client_address()?.to_owned()))).collect()
}

/// `POST /v1/members`: adds a learner, which may be a witness.
pub(super) async fn add(
    State(api): State<Api>,
    expect: Result<Query<Expect>, QueryRejection>,
    request: Request<axum::body::Body>,
) -> Result<Json<ChangeAnswer>, Refusal> {
    let AddRequest { id, addr, witness, client_addr, labels } =
        read(&api, request, "{\"id\":ID,\"addr\":\"HOST:PORT\"}").await?;
    let add = if witness { Change::add_witness } else { Change::add };
    let add = add(valid(id)?, dialable(id, addr)?);
    let update = MetadataUpdate {
        client_address: client_addr.map(Some),
        labels: labels.into_iter().map(|(key, value)| (key, Some(value))).collect(),
    };
    let is_described = update != MetadataUpdate::default();
    change(&api, expect, if is_described { add.and(Change::describe(id, update)) } else { add }).await
}

/// `PUT /v1/members`: replaces the set of voters in one step.
pub(super) async fn set(
    State(api): State<Api>,
    expect: Result<Query<Expect>, QueryRejection>,
    request: Request<axum::body::Body>,
) -> Result<Json<ChangeAnswer>, Refusal> {
    let shape = "{\"voters\":[{\"id\":ID,\"addr\":\"HOST:PORT\"},…]}";
    let VotersRequest { voters } = read(&api, request, shape).await?;
    let voters: Vec<_> = voters
        .into_iter()
        .map(|voter| {
            let address = voter.addr.map(|addr| dialable(voter.id, addr)).transpose()?;
            Ok(Member { id: valid(voter.id)?, address })
        })
        .collect::<Result<_, Refusal>>()?;
    change(&api, expect, Change::set_voters(voters)).await
}

/// `PUT /v1/members/{id}/addr`: changes the address at which the others dial a member.
pub(super) async fn move_to(
    State(api): State<Api>,
    Path(id): Path<String>,
    expect: Result<Query<Expect>, QueryRejection>,
    request: Request<axum::body::Body>,
) -> Result<Json<ChangeAnswer>, Refusal> {
    let id = id_in(&id)?;
    let MoveRequest { addr } = read(&api, request, "{\"addr\":\"HOST:PORT\"}").await?;
    change(&api, expect, Change::move_to(id, dialable(id, addr)?)).await
}

/// `PATCH /v1/members/{id}/metadata`: changes the client address and labels that it names.
pub(super) async fn describe(
    State(api): State<Api>,
    Path(id): Path<String>,
    expect: Result<Query<Expect>, QueryRejection>,
    request: Request<axum::body::Body>,
) -> Result<Json<ChangeAnswer>, Refusal> {
    let id = id_in(&id)?;
    let shape = "{\"client_addr\":\"https://HOST:PORT\",\"labels\":{\"KEY\":\"VALUE\"}}";
    let MetadataRequest { client_addr: client_address, labels } = read(&api, request, shape).await?;
    change(&api, expect, Change::describe(id, MetadataUpdate { client_address, labels })).await
}

/// `POST /v1/members/{id}/promote`
pub(super) async fn promote(
    State(api): State<Api>,
    Path(id): Path<String>,
    expect: Result<Query<Expect>, QueryRejection>,
) -> Result<Json<ChangeAnswer>, Refusal> {
    change(&api, expect, Change::promote(id_in(&id)?)).await
}

/// `DELETE /v1/members/{id}`
pub(super) async fn remove(
    State(api): State<Api>,
    Path(id): Path<String>,
    expect: Result<Query<Expect>, QueryRejection>,
) -> Result<Json<ChangeAnswer>, Refusal> {
    change(&api, expect, Change::remove(id_in(&id)?)).await
}

/// `POST /v1/transfer`
pub(super) async fn transfer(
    State(api): State<Api>,
    request: Request<axum::body::Body>,
) -> Result<Json<TransferAnswer>, Refusal> {
    let TransferRequest { to } = read(&api, request, "{\"to\":ID} or {}").await?;
    let leader_id = api.node.transfer(to.map(valid).transpose()?).await?;
    Ok(Json(TransferAnswer { leader_id }))
}

async fn change(
    api: &Api,
    expect: Result<Query<Expect>, QueryRejection>,
    change: Change,
) -> Result<Json<ChangeAnswer>, Refusal> {
    api.open()?;
    let Query(Expect { expect }) = expect.map_err(|error| Refusal::BadRequest(error.body_text()))?;
    let change = match expect {
        Some(index) => change.expecting(quorate::Index(index)),
        None => change,
    };
    let index = api.node.change(change).await?.index;
    Ok(Json(ChangeAnswer { index }))
}

async fn read<T: DeserializeOwned + Debug>(
    api: &Api,
    request: Request<axum::body::Body>,
    shape: &str,
) -> Result<T, Refusal> {
    api.open()?;
    super::guard::is_json(request.headers())?;
    let asked = request.extensions().get::<Asked>().cloned().unwrap_or_default();
    let whole = api.bodies.read(request, BODY_BYTES_MAX).await?;
    let parsed = object::from_json(&whole.bytes)
        .map_err(|error| Refusal::BadRequest(format!("the body is not {shape}: {error}")))?;
    asked.set(&parsed);
    Ok(parsed)
}

fn id_in(text: &str) -> Result<NodeId, Refusal> {
    // Leading zeros would push the id out of the log line.
    let id = text.parse().ok().filter(|id: &u64| id.to_string() == text);
    let id = id
        .ok_or_else(|| Refusal::BadRequest(format!("{text:?} is not a node id; use a number without leading zeros")))?;
    valid(NodeId(id))
}

fn valid(id: NodeId) -> Result<NodeId, Refusal> {
    if id == NodeId(0) { Err(Refusal::BadRequest("node ids start at 1".to_owned())) } else { Ok(id) }
}

/// Refuses bad addresses early: once in the configuration, one would show only when a
/// node dials it.
fn dialable(id: NodeId, addr: String) -> Result<String, Refusal> {
    if is_host_and_port(&addr) && address::is_dialable(&addr) {
        return Ok(addr);
    }
    Err(Refusal::BadRequest(format!(
        "{addr:?} of node {id} cannot be dialled; write HOST:PORT, for example 10.0.0.1:7001"
    )))
}

/// The condition of a change: the configuration that must be in force.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// The log index of that configuration, from `GET /v1/members`.
    expect: Option<u64>,
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let ChangeError::Refused(why) = error else {
            return if error == ChangeError::Stopped { Self::Stopping } else { Self::Undecided(error.to_string()) };
        };
        match why {
            ChangeRefused::NotLeader => Self::NoLeader,
            ChangeRefused::Unknown { .. } => Self::NotFound(why.to_string()),
            ChangeRefused::BadAddress { .. }
            | ChangeRefused::Twice { .. }
            | ChangeRefused::Demotes { .. }
            | ChangeRefused::NoVoters
            | ChangeRefused::TooMany
            | ChangeRefused::NotWitness { .. }
            | ChangeRefused::BadMetadata { .. }
            | ChangeRefused::TooFewFull => Self::BadRequest(why.to_string()),
            ChangeRefused::NotReady
            | ChangeRefused::Pending { .. }
            | ChangeRefused::TransferInProgress
            | ChangeRefused::Moved { .. }
            | ChangeRefused::Member { .. }
            | ChangeRefused::AddressTaken { .. }
            | ChangeRefused::WitnessTaken { .. }
            | ChangeRefused::Behind { .. } => Self::Conflict(why.to_string()),
        }
    }
}

impl From<TransferError> for Refusal {
    fn from(error: TransferError) -> Self {
        use quorate::TransferRefused::{NotLeader, NotVoter, Witness};
        match error {
            TransferError::Refused(NotLeader) => Self::NoLeader,
            TransferError::Refused(why @ (NotVoter { .. } | Witness { .. })) => Self::BadRequest(why.to_string()),
            TransferError::Refused(why) => Self::Conflict(why.to_string()),
            TransferError::Stopped => Self::Stopping,
            _ => Self::Undecided(error.to_string()),
        }
    }
}
