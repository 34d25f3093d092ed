//! The browser's part: authorize, the two-step login page (e-mail, then password), and the way back.
//! An error goes to the redirect URI only when that is on the client's white list.

use super::context::VirtualHost;
use super::login_tickets::LoginTicket;
use super::reply::Reply;
use super::request::SandboxRequest;
use super::tokens::{Grant, Holder, random_text};

/// `GET /oauth2/authorize`: checks the application's part and sends the browser to the login page.
pub fn authorize(host: &VirtualHost, request: &SandboxRequest) -> Reply {
    let Some(platform) = host.role.platform() else { return Reply::error(404, "no such resource") };
    let parameter = |name: &str| request.parameter(name).unwrap_or_default();
    let mut state = host.context.state();
    let (client_id, redirect_uri) = (parameter("client_id"), parameter("redirect_uri"));
    let Some(client) = state.client(platform, &client_id) else {
        return refused(401, "This application is not known here.");
    };
    // 3.1: "This URL should be whitelisted on iTero side"; "doesn't support URLs with '#'"
    if redirect_uri.contains('#') || !client.redirect_uris.contains(&redirect_uri) {
        return refused(400, "The redirect URI is not on this application's list.");
    }
    let oauth_state = request.parameter("state");
    if parameter("loginPage") != host.context.login_page(platform) {
        return refused(400, "loginPage is missing or is not the page that was given to this application.");
    }
    let back = |error: &str, why: &str| error_redirect(&redirect_uri, error, why, oauth_state.as_deref());
    if parameter("response_type") != "code" {
        return back("unsupported_response_type", "only code");
    }
    if !parameter("scope").split(' ').any(|scope| scope == "openid") {
        return back("invalid_scope", "openid is needed");
    }
    let now = host.now();
    let login = LoginTicket::new(platform, client_id, redirect_uri, oauth_state, now);
    let ticket = state.tickets.issue(login, now);
    Reply::redirect(302, format!("{}?ticket={ticket}", host.context.login_page(platform)))
}

/// `GET /login` and the forms that it leads to.
pub fn page(host: &VirtualHost, request: &SandboxRequest) -> Reply {
    let ticket = request.parameter("ticket").or_else(|| request.form_value("ticket")).unwrap_or_default();
    let Some(login) = live_login(host, &ticket) else {
        return refused(400, "This login has run out. Start again from your application.");
    };
    match request.path() {
        "/login" => Reply::html(200, email_page(&ticket, "")),
        "/login/email" => email_given(host, request, &ticket),
        "/login/password" => password_given(host, request, &ticket, login),
        "/login/cancel" => {
            host.context.state().tickets.remove(&ticket);
            error_redirect(
                &login.redirect_uri,
                "access_denied",
                "the user cancelled",
                login.oauth_state.as_deref(),
            )
        }
        _ => Reply::error(404, "no such resource"),
    }
}

fn live_login(host: &VirtualHost, ticket: &str) -> Option<LoginTicket> {
    let state = host.context.state();
    let login = state.tickets.live(ticket, host.now());
    login.filter(|login| Some(login.platform) == host.role.platform()).cloned()
}

/// Whether somebody has that address shows with the password only, as careful pages do.
fn email_given(host: &VirtualHost, request: &SandboxRequest, ticket: &str) -> Reply {
    let email = request.form_value("email").unwrap_or_default();
    if !email.contains('@') {
        return Reply::html(200, email_page(ticket, "Enter your e-mail address."));
    }
    host.context.state().tickets.set_email(ticket, &email);
    Reply::html(200, password_page(ticket, &email, ""))
}

fn password_given(host: &VirtualHost, request: &SandboxRequest, ticket: &str, login: LoginTicket) -> Reply {
    let Some(email) = login.email else {
        return Reply::html(200, email_page(ticket, "Enter your e-mail address first."));
    };
    let password = request.form_value("password").unwrap_or_default();
    let now = host.now();
    let mut state = host.context.state();
    if !state.password_fits(&email, &password) {
        return Reply::html(200, password_page(ticket, &email, "Wrong e-mail address or password."));
    }
    state.tickets.remove(ticket);
    let grant = Grant { platform: login.platform, client_id: login.client_id, holder: Holder::User(email) };
    let code = state.tokens.new_code(grant, login.redirect_uri.clone(), now);
    let mut back = vec![("code", code)];
    back.extend(login.oauth_state.map(|oauth_state| ("state", oauth_state)));
    // 4.1.1: "<RedirectURL>?code=<AuthorizationCode>&state=<string>&session_state=<string>"
    back.push(("session_state", random_text(18)));
    Reply::redirect(302, with_query(&login.redirect_uri, &back))
}

/// RFC 6749, 4.1.2.1; the vendor prints nothing about it.
fn error_redirect(redirect_uri: &str, error: &str, why: &str, oauth_state: Option<&str>) -> Reply {
    let mut back = vec![("error", error.to_owned()), ("error_description", why.to_owned())];
    back.extend(oauth_state.map(|oauth_state| ("state", oauth_state.to_owned())));
    Reply::redirect(302, with_query(redirect_uri, &back))
}

fn with_query(uri: &str, parameters: &[(&str, String)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    let joint = if uri.contains('?') { '&' } else { '?' };
    format!("{uri}{joint}{query}")
}

fn refused(status: u16, sentence: &str) -> Reply {
    Reply::html(status, framed(&format!("<p class=error>{sentence}</p>")))
}

fn email_page(ticket: &str, error: &str) -> String {
    framed(&format!(
        "{}<form method=post action=/login/email><input type=hidden name=ticket value=\"{ticket}\">\
         <label>E-mail <input type=email name=email autofocus required></label>\
         <button>Next</button></form>{}",
        error_line(error),
        cancel_form(ticket),
    ))
}

fn password_page(ticket: &str, email: &str, error: &str) -> String {
    framed(&format!(
        "{}<p>{}</p><form method=post action=/login/password>\
         <input type=hidden name=ticket value=\"{ticket}\">\
         <label>Password <input type=password name=password autofocus required></label>\
         <button>Sign in</button></form>{}",
        error_line(error),
        escaped(email),
        cancel_form(ticket),
    ))
}

fn cancel_form(ticket: &str) -> String {
    format!(
        "<form method=post action=/login/cancel><input type=hidden name=ticket value=\"{ticket}\">\
         <button>Cancel</button></form>"
    )
}

fn error_line(error: &str) -> String {
    if error.is_empty() { String::new() } else { format!("<p class=error>{error}</p>") }
}

fn framed(content: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Sandbox login</title>\
         <style>body{{font:16px sans-serif;max-width:24em;margin:4em auto}}.error{{color:#a00}}</style>\
         <h1>Sandbox login</h1>{content}</html>"
    )
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}
