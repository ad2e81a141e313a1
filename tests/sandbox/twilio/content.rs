//! Content templates (twilio contract page, section 14): made, listed, put before WhatsApp, deleted; and what a send makes of one.

use super::super::{bucket::Bucket, platform::Api, provider::Provider, refusal::Refusal, reply};
use super::api::Call;
use axum::body::Body;
use http::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Everything that Twilio keeps by account and not by sender.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    templates: Mutex<Vec<Template>>,
    /// Requests under way, by account.
    pub(super) under_way: Mutex<HashMap<String, u32>>,
    /// What each account asks for by the second.
    requests: Mutex<HashMap<String, Bucket>>,
}

/// A template.
#[derive(Debug, Clone)]
pub(super) struct Template {
    pub(super) sid: String,
    account_sid: String,
    friendly_name: String,
    language: String,
    variables: Map<String, Value>,
    types: Map<String, Value>,
    created_us: u64,
    approval: Option<Approval>,
}

/// How a template stands with WhatsApp.
#[derive(Debug, Clone)]
struct Approval {
    name: String,
    category: String,
    status: String,
    rejection_reason: String,
}

/// Types that a template can have.
const TYPES: [&str; 13] = [
    "twilio/text",
    "twilio/media",
    "twilio/quick-reply",
    "twilio/list-picker",
    "twilio/call-to-action",
    "twilio/card",
    "twilio/carousel",
    "twilio/catalog",
    "twilio/location",
    "twilio/flows",
    "twilio/schedule",
    "whatsapp/card",
    "whatsapp/authentication",
];

impl Desk {
    /// Counts a request of an account's, if there may be one more.
    pub(super) fn admit(&self, account_sid: &str, now_us: u64, rate: u32) -> bool {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.entry(account_sid.to_owned()).or_default().take(now_us, rate, rate)
    }

    /// The template of an account.
    pub(super) fn template(&self, account_sid: &str, sid: &str) -> Option<Template> {
        self.lock().iter().find(|template| template.account_sid == account_sid && template.sid == sid).cloned()
    }

    /// Says how a template stands with WhatsApp from now on. False if there is none.
    pub(crate) fn set_approval(&self, sid: &str, status: &str, reason: &str) -> bool {
        let mut templates = self.lock();
        let Some(template) = templates.iter_mut().find(|template| template.sid == sid) else { return false };
        let name = template.friendly_name.clone();
        let approval = template.approval.get_or_insert_with(|| Approval {
            name,
            category: "UTILITY".into(),
            status: String::new(),
            rejection_reason: String::new(),
        });
        (approval.status, approval.rejection_reason) = (status.into(), reason.into());
        true
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Template>> {
        self.templates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Template {
    /// `approved`, `rejected` …; `unsubmitted` if nobody asked.
    pub(super) fn approval(&self) -> &str {
        self.approval.as_ref().map_or("unsubmitted", |approval| &approval.status)
    }

    /// The text with its variables filled in, or the code that the message fails with later.
    pub(super) fn rendered(&self, given: &Map<String, Value>) -> Result<String, u32> {
        let body = self.types.values().find_map(|of_type| of_type["body"].as_str()).unwrap_or_default();
        let (mut text, mut rest) = (String::new(), body);
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else { break };
            text.push_str(before);
            let value = given.get(name.trim()).or_else(|| self.variables.get(name.trim())).and_then(Value::as_str);
            let value = value.ok_or(63_028_u32)?;
            if value.contains(['\n', '\t']) || value.contains("    ") {
                return Err(63_028);
            }
            text.push_str(value);
            rest = after;
        }
        text.push_str(rest);
        Ok(text)
    }

    fn view(&self, provider: &Provider) -> Value {
        let url = format!("https://content.twilio.com/v1/Content/{}", self.sid);
        let date = provider.clock.wall(self.created_us).format("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({"sid": self.sid, "account_sid": self.account_sid, "friendly_name": self.friendly_name,
            "language": self.language, "variables": self.variables, "types": self.types, "url": url,
            "date_created": date, "date_updated": date, "links": {
                "approval_create": format!("{url}/ApprovalRequests/whatsapp"), "approval_fetch": format!("{url}/ApprovalRequests")}})
    }

    fn approval_view(&self) -> Value {
        let content_type = self.types.keys().next().map(String::as_str).unwrap_or_default();
        match &self.approval {
            Some(approval) => {
                json!({"name": approval.name, "category": approval.category, "content_type": content_type,
                "status": approval.status, "rejection_reason": approval.rejection_reason, "allow_category_change": true})
            }
            None => json!({"name": "", "category": "", "content_type": content_type, "status": "unsubmitted",
                "rejection_reason": "", "allow_category_change": true}),
        }
    }
}

/// Answers a call under `/v1`.
pub(super) fn handle(provider: &Arc<Provider>, call: &Call, account: &str) -> Result<Response<Body>, Refusal> {
    let refused = |code| Err(Refusal::of(Api::Twilio, code, None));
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    match (&call.method, &path[..]) {
        (&Method::POST, ["v1", "Content"]) => create(provider, call, account),
        (&Method::GET, ["v1", key @ ("Content" | "ContentAndApprovals")]) => {
            Ok(list(provider, call, account, *key == "ContentAndApprovals"))
        }
        (&Method::GET, ["v1", "Content", sid]) => match provider.twilio.template(account, sid) {
            Some(template) => Ok(reply::json(StatusCode::OK, &template.view(provider))),
            None => refused(20_404),
        },
        (&Method::DELETE, ["v1", "Content", sid]) => {
            let mut templates = provider.twilio.lock();
            let before = templates.len();
            templates.retain(|template| template.account_sid != account || template.sid != **sid);
            if templates.len() == before {
                return refused(20_404);
            }
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        (&Method::POST, ["v1", "Content", sid, "ApprovalRequests", "whatsapp"]) => submit(provider, call, account, sid),
        (&Method::GET, ["v1", "Content", sid, "ApprovalRequests"]) => {
            let Some(template) = provider.twilio.template(account, sid) else { return refused(20_404) };
            let mut whatsapp = template.approval_view();
            whatsapp["type"] = json!("whatsapp");
            let url = format!("https://content.twilio.com/v1/Content/{sid}/ApprovalRequests");
            Ok(reply::json(
                StatusCode::OK,
                &json!({"sid": sid, "account_sid": account, "whatsapp": whatsapp, "url": url}),
            ))
        }
        _ => refused(20_404),
    }
}

fn create(provider: &Provider, call: &Call, account: &str) -> Result<Response<Body>, Refusal> {
    let invalid = |why: &str| Refusal::of(Api::Twilio, 20_001, None).saying(why.to_owned());
    let body: Value = serde_json::from_slice(&call.body).map_err(|_| invalid("The body is not valid JSON"))?;
    let object = |key: &str| body[key].as_object().cloned();
    let types = object("types").filter(|types| !types.is_empty()).ok_or_else(|| invalid("types is required"))?;
    if let Some(unknown) = types.keys().find(|name| !TYPES.contains(&name.as_str()) && *name != "whatsapp/flows") {
        return Err(invalid(&format!("There is no type {unknown}")));
    }
    let language = body["language"].as_str().ok_or_else(|| invalid("language is required"))?;
    let variables = object("variables").unwrap_or_default();
    if variables.len() > 100 || variables.values().any(|value| !value.is_string()) {
        return Err(invalid("variables must be at most 100 texts"));
    }
    let template = Template {
        sid: super::sid("HX", provider.dice.roll().bits(), provider.dice.roll().bits()),
        account_sid: account.to_owned(),
        friendly_name: body["friendly_name"].as_str().unwrap_or_default().to_owned(),
        language: language.to_owned(),
        variables,
        types,
        created_us: provider.clock.now_us(),
        approval: None,
    };
    let view = template.view(provider);
    provider.twilio.lock().push(template);
    Ok(reply::json(StatusCode::CREATED, &view))
}

fn list(provider: &Provider, call: &Call, account: &str, with_approvals: bool) -> Response<Body> {
    let number =
        |name: &str, default: usize| call.parameter(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (size, page) = (number("PageSize", 50).clamp(1, 1_000), number("Page", 0));
    let resource = if with_approvals { "ContentAndApprovals" } else { "Content" };
    let templates = provider.twilio.lock();
    let all: Vec<&Template> = templates.iter().filter(|template| template.account_sid == account).collect();
    let shown: Vec<Value> = all
        .iter()
        .skip(page * size)
        .take(size)
        .map(|template| {
            let mut view = template.view(provider);
            if with_approvals {
                view["approval_requests"] = template.approval_view();
            }
            view
        })
        .collect();
    // Links lead to where the call came to, so that they can be followed.
    let url =
        |page: usize| format!("{}/v1/{resource}?PageSize={size}&Page={page}&PageToken=PT{page}", provider.own_url);
    let next = ((page + 1) * size < all.len()).then(|| url(page + 1));
    let previous = page.checked_sub(1).map(url);
    reply::json(
        StatusCode::OK,
        &json!({"contents": shown, "meta": {"page": page, "page_size": size, "first_page_url": url(0),
            "previous_page_url": previous, "next_page_url": next, "url": url(page), "key": "contents"}}),
    )
}

/// Puts a template before WhatsApp, which takes a moment to approve it.
fn submit(provider: &Arc<Provider>, call: &Call, account: &str, sid: &str) -> Result<Response<Body>, Refusal> {
    let invalid = |why: &'static str| Refusal::of(Api::Twilio, 20_001, None).saying(why);
    let body: Value = serde_json::from_slice(&call.body).map_err(|_| invalid("The body is not valid JSON"))?;
    let name = body["name"].as_str().unwrap_or_default();
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if name.is_empty() || !name.bytes().all(fits) {
        return Err(invalid("name may only have lower-case letters, digits and underscores"));
    }
    let category = body["category"].as_str().unwrap_or_default();
    if !["UTILITY", "MARKETING", "AUTHENTICATION"].contains(&category) {
        return Err(invalid("category must be UTILITY, MARKETING or AUTHENTICATION"));
    }
    let mut templates = provider.twilio.lock();
    let template = templates.iter_mut().find(|template| template.account_sid == account && template.sid == sid);
    let template = template.ok_or_else(|| Refusal::of(Api::Twilio, 20_404, None))?;
    if template.types.contains_key("twilio/list-picker") {
        return Err(invalid("A list picker cannot be approved"));
    }
    let (name, category) = (name.to_owned(), category.to_owned());
    template.approval = Some(Approval { name, category, status: "received".into(), rejection_reason: String::new() });
    let view = template.approval_view();
    drop(templates);
    let (approving, sid) = (provider.clone(), sid.to_owned());
    provider.tasks.spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(approving.behaviour().approval_ms)) => {}
            () = approving.stopping.cancelled() => return,
        }
        let mut templates = approving.twilio.lock();
        let approval = templates.iter_mut().find(|template| template.sid == sid).and_then(|it| it.approval.as_mut());
        // Unless a test has decided otherwise in the meantime.
        if let Some(approval) = approval.filter(|approval| approval.status == "received") {
            approval.status = "approved".into();
        }
    });
    Ok(reply::json(StatusCode::CREATED, &view))
}
