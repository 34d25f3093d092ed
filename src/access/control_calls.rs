//! What renewal needs from outside: four control calls of a realm. One trait, so that a renewal can be tested
//! against a scripted platform.

use std::future::Future;
use std::pin::Pin;

use crate::model::route::Route;
use crate::model::token::{AccessToken, RefreshToken, TokenSet};
use crate::platform::{CredentialsCheck, Platform, PlatformError};

pub type Call<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One realm's control calls, one attempt each.
pub trait ControlCalls: Send + Sync + 'static {
    fn refresh<'a>(&'a self, refresh: &'a RefreshToken) -> Call<'a, Result<TokenSet, PlatformError>>;
    fn discover<'a>(
        &'a self,
        last: Option<&'a Route>,
        bearer: &'a AccessToken,
    ) -> Call<'a, Result<Route, PlatformError>>;
    /// The later discovery over a route that is not in use: where it says that calls go.
    fn prove<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
    ) -> Call<'a, Result<Route, PlatformError>>;
    fn probe_credentials(&self) -> Call<'_, CredentialsCheck>;
}

impl ControlCalls for Platform {
    fn refresh<'a>(&'a self, refresh: &'a RefreshToken) -> Call<'a, Result<TokenSet, PlatformError>> {
        Box::pin(Platform::refresh(self, refresh))
    }

    fn discover<'a>(
        &'a self,
        last: Option<&'a Route>,
        bearer: &'a AccessToken,
    ) -> Call<'a, Result<Route, PlatformError>> {
        Box::pin(Platform::discover(self, last, bearer))
    }

    fn prove<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
    ) -> Call<'a, Result<Route, PlatformError>> {
        Box::pin(Platform::prove(self, route, bearer))
    }

    fn probe_credentials(&self) -> Call<'_, CredentialsCheck> {
        Box::pin(Platform::probe_credentials(self))
    }
}
