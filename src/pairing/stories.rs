//! Logins and operators' deeds from beginning to end, against a scripted platform.

mod ends;
mod imports;
mod logins;
mod operators;
mod removing;

use super::doubles::{Scene, global};
use super::{
    Begin, CallbackResult, Connected, LoginError, LoginOutcome, LoginProof, PAIR_LINK_VALID, StartRequest,
};

pub(super) fn request() -> StartRequest {
    StartRequest {
        realm: global(),
        name: None,
        account_id: None,
        callback_url: None,
        valid_for: PAIR_LINK_VALID,
    }
}

pub(super) fn named(name: &str) -> StartRequest {
    StartRequest { name: Some(name.parse().unwrap()), ..request() }
}

/// A browser that has pressed the button of a start link.
pub(super) struct Visitor {
    pub link: String,
    pub state: String,
    pub cookies: String,
}

impl Visitor {
    pub async fn with(scene: &Scene, request: StartRequest) -> Self {
        let link = scene.pairing.start(request).await.unwrap().url;
        Self::at(scene, link).await
    }

    pub async fn at(scene: &Scene, link: String) -> Self {
        let code = link.strip_prefix("https://gateway.example.com/connect/").unwrap();
        let Ok(Begin { authorize_url, cookie }) = scene.pairing.begin(code).await else {
            panic!("the start link does not work")
        };
        let state = authorize_url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        let cookies = cookie.header().split(';').next().unwrap().to_owned();
        Self { link, state, cookies }
    }

    pub fn query(&self) -> String {
        format!("code=the-code&state={}&session_state=x", self.state)
    }

    pub async fn returns(&self, scene: &Scene) -> CallbackResult {
        let proof = LoginProof::Browser { cookies: &self.cookies };
        scene.pairing.callback(&self.query(), proof).await
    }
}

pub(super) fn connected(response: CallbackResult) -> Connected {
    match response.outcome {
        LoginOutcome::Connected(connected) => connected,
        other => panic!("not connected: {other:?}"),
    }
}

pub(super) fn error(response: &CallbackResult) -> &LoginError {
    match &response.outcome {
        LoginOutcome::Failed { error, .. } => error,
        other => panic!("not stopped: {other:?}"),
    }
}

/// Pairs account 12 under a name and returns nothing but the deed.
pub(super) async fn pair(scene: &Scene, name: &str) {
    let visitor = Visitor::with(scene, named(name)).await;
    connected(visitor.returns(scene).await);
}
