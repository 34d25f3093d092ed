//! Logins that are going on in some browser, each known by the ticket that its forms carry.
//! A ticket is good for ten minutes, and at the platform that issued it alone.

use std::collections::HashMap;
use std::time::Duration;

use super::host_role::Platform;
use super::tokens::random_text;
use crate::clock::Timestamp;

const TICKET_LIFE: Duration = Duration::from_secs(10 * 60);

/// The logins under way, by ticket.
#[derive(Default)]
pub struct LoginTickets(HashMap<String, LoginTicket>);

/// What is known of a login before its password was given.
#[derive(Clone)]
pub struct LoginTicket {
    pub platform: Platform,
    pub client_id: String,
    pub redirect_uri: String,
    pub oauth_state: Option<String>,
    pub email: Option<String>,
    expires_at: Timestamp,
}

impl LoginTicket {
    pub fn new(
        platform: Platform,
        client_id: String,
        redirect_uri: String,
        oauth_state: Option<String>,
        now: Timestamp,
    ) -> Self {
        let expires_at = now + TICKET_LIFE;
        Self { platform, client_id, redirect_uri, oauth_state, email: None, expires_at }
    }
}

impl LoginTickets {
    /// Keeps a login and returns its ticket; those that have run out are dropped.
    pub fn issue(&mut self, login: LoginTicket, now: Timestamp) -> String {
        self.0.retain(|_, old| old.expires_at > now);
        let ticket = random_text(24);
        self.0.insert(ticket.clone(), login);
        ticket
    }

    /// The login of a ticket, unless it has run out.
    pub fn live(&self, ticket: &str, now: Timestamp) -> Option<&LoginTicket> {
        self.0.get(ticket).filter(|login| login.expires_at > now)
    }

    pub fn set_email(&mut self, ticket: &str, email: &str) {
        if let Some(login) = self.0.get_mut(ticket) {
            login.email = Some(email.to_owned());
        }
    }

    pub fn remove(&mut self, ticket: &str) {
        self.0.remove(ticket);
    }
}
