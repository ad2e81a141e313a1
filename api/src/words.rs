//! Closed sets of words that are the API's alone, or that are no type elsewhere, for its description. Those of the domain are in
//! `shared::domain::words`.

use shared::{
    db::webhook_log::replays::State,
    domain::{channel::Provider, local_templates::CATEGORIES, sends::SendState, words::schema},
    jobs::outbound::Decision,
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

macro_rules! described {
    ($($name:ident = $words:expr, $says:literal;)+) => {
        $(
            #[doc = $says]
            pub(crate) struct $name;

            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    schema($words, $says)
                }
            }

            impl ToSchema for $name {}
        )+
    };
}

described! {
    WebhookProvider = Provider::WITH_WEBHOOKS.iter().map(|provider| provider.as_str()), "A provider that sends webhooks.";
    ReplayState = [State::Counting, State::Running, State::Completed, State::Stopped].map(State::as_str), "Where a replay stands. \
        `counting`: its webhooks are being counted; `running`: they are being published; `completed`: all are published; `stopped`: \
        somebody stopped it.";
    UndecidedState = [SendState::Unknown, SendState::Held].map(SendState::as_str), "`unknown`: evidence may still come. `held`: a \
        person has to decide.";
    DecisionWord = [Decision::Sent, Decision::Failed, Decision::Resend].map(decision), "`sent`: it arrived. `failed`: it did not, and \
        is not to be sent. `resend`: it is sent again, and shown as possibly doubled.";
    AuditActor = ["token", "operator"], "Who asked for it: whoever holds a token of the API, or an operator at the command line.";
    TemplateKind = ["provider", "local"], "Whose a template is: a provider's, or the tenant's own.";
    LocalCategory = CATEGORIES, "What a template of the tenant's own is for.";
}

fn decision(decision: Decision) -> &'static str {
    match decision {
        Decision::Sent => "sent",
        Decision::Failed => "failed",
        Decision::Resend => "resend",
    }
}
