//! Which accounts may be tested with on the real platform: those that `accounts test` has marked, as the
//! gateway itself says.

use std::path::Path;

use crate::admin::view::AccountView;

use super::api::Api;

/// Every account of the plan is one that exists to be tested with, as the gateway knows it.
pub fn require_test_accounts(config: &Path, accounts: &[String]) -> Result<(), String> {
    const FORCE: &str = "--force calls them all the same";
    if accounts.is_empty() {
        return Err(format!(
            "no account is named, so none can be seen to be a test account: name them with --accounts; {FORCE}"
        ));
    }
    let views = Api::from_config(config).and_then(|api| api.get::<Vec<AccountView>>("/api/accounts"));
    let views = views
        .map_err(|problem| format!("whether these are test accounts cannot be asked ({problem}); {FORCE}"))?;
    let is_test = |wanted: &&String| {
        let (wanted, name) = (wanted.as_str(), wanted.to_ascii_lowercase());
        let is_it = |view: &AccountView| {
            let id = view.account_id.to_string();
            view.name.as_str() == name || wanted == id || name == format!("{}:{id}", view.realm)
        };
        let mut meant = views.iter().filter(|view| is_it(view)).peekable();
        meant.peek().is_some() && meant.all(|view| view.test == Some(true))
    };
    let others: Vec<&str> = accounts.iter().filter(|name| !is_test(name)).map(String::as_str).collect();
    if others.is_empty() {
        return Ok(());
    }
    let shown = others.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    let more = if others.len() > 5 { format!(" and {} more", others.len() - 5) } else { String::new() };
    Err(format!(
        "{shown}{more}: not marked as test accounts, and --real-platform would load the platform with them; \
         `genapi-gateway accounts test NAME --on` marks one, {FORCE}"
    ))
}
