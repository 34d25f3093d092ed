//! One of the API's own reads, for a comparison of two platforms. The rule: GET alone, and below a route that
//! the realm allows.

use crate::model::route::Route;
use crate::model::token::AccessToken;

use super::control_call::ControlCall;
use super::{PlatformClient, PlatformError};

/// A response, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadResponse {
    pub status: u16,
    pub body: Vec<u8>,
}

impl PlatformClient {
    /// GET `path` below the route; fails only where there is no complete response.
    pub async fn read(
        &self,
        route: &Route,
        path: &str,
        bearer: &AccessToken,
    ) -> Result<ReadResponse, PlatformError> {
        let url = self.below(ControlCall::Read, route, path.trim_start_matches('/'))?;
        let (status, body) = self.client.read_whatever(ControlCall::Read, url, bearer).await?;
        Ok(ReadResponse { status, body })
    }
}
