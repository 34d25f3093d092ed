//! SIGHUP: the new configuration takes over as a whole, or the old one stays. Certificates are looked at by
//! themselves as well.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Config};
use crate::gateway::{self, settings::GatewaySettings};
use crate::pairing::ApplicationClient;
use crate::server::Reload;

use super::{Running, RunningState, operator, preflight, realms};

/// File watches miss what container platforms do to mounted files, so contents are compared (dependencies:
/// file watching).
const LOOK_EVERY: Duration = Duration::from_secs(2);
const LOOKS_A_DAY: u32 = 86_400 / 2;

impl Running {
    /// Reads the file again. The old configuration stays in force where the new one is not valid.
    pub async fn reload(&self) {
        let file = self.config().file.clone();
        match config::load(&file, &config::process_env) {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                self.take_over(loaded.config).await;
            }
            Err(problems) => {
                tracing::error!("the configuration is not valid and the old one stays in force:\n{problems}");
            }
        }
        self.state.reload_certificates();
        self.state.warn_of_certificates();
        if let Err(error) = self.state.lifecycle.audit.reopen().await {
            tracing::error!(%error, "the audit log cannot be opened again; it goes on in the old file");
        }
    }

    async fn take_over(&self, fresh: Config) {
        let old = self.config();
        let fresh = self.bound.resolve_ports(fresh);
        let waiting = Config::diff_needing_restart(&old, &fresh);
        if !waiting.is_empty() {
            tracing::warn!(
                keys = waiting.join(", "),
                "these changes need a restart; everything else is in force"
            );
        }
        if let Err(error) = self.state.apply_to_running(&old, fresh).await {
            tracing::error!("the new configuration cannot be used and the old one stays in force: {error:#}");
        }
    }
}

impl RunningState {
    async fn apply_to_running(&self, old: &Config, fresh: Config) -> anyhow::Result<()> {
        let parts = realms::build_all(&fresh, &gateway::via_header(&self.data.shared.instance))?;
        let changed = realms::changed(old, &fresh);
        self.data.connectors.replace(&parts);
        self.control.registry.set_rules(realms::rules(&fresh));
        self.control.pairing.reload(
            realms::for_pairing(&fresh, &parts),
            ApplicationClient::all(&fresh.callers),
            fresh.retry.clone(),
        );
        let caller = self.data.operator.clone();
        self.data.shared.settings.store(Arc::new(GatewaySettings::compile(&operator::with(&fresh, caller))));
        self.control.renewals.reload(fresh.renewal.clone(), realms::control_calls(&parts), &changed).await;
        for realm in old.realms.keys().filter(|name| !fresh.realms.contains_key(*name)) {
            self.lifecycle.metrics.forget_realm(realm.as_str(), &["ready", "paused", "needs_login"]);
        }
        self.lifecycle.config.store(Arc::new(fresh));
        tracing::info!("the new configuration is in force");
        Ok(())
    }

    /// A start warned of those that end soon; a gateway runs for months.
    fn warn_of_certificates(&self) {
        for doubt in
            preflight::certificate_warnings(&self.lifecycle.config.load(), self.data.shared.clock.now())
        {
            tracing::warn!("{}. Fix: {}.", doubt.what, doubt.fix);
        }
    }

    fn reload_certificates(&self) {
        for certificates in &self.data.certificates {
            match certificates.reload_if_changed() {
                Reload::Unchanged => {}
                Reload::Swapped => tracing::info!("a certificate was replaced"),
                Reload::Failed(error) => {
                    tracing::error!(%error, "a certificate cannot be replaced; the old one stays in use");
                }
            }
        }
    }
}

pub async fn watch_certificates(state: Arc<RunningState>) {
    if state.data.certificates.is_empty() {
        return;
    }
    let mut looks = 0u32;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        looks = looks.wrapping_add(1);
        let (looking, warns) = (state.clone(), looks.is_multiple_of(LOOKS_A_DAY));
        // Reads files: off the runtime's own threads.
        let looked = tokio::task::spawn_blocking(move || {
            looking.reload_certificates();
            if warns {
                looking.warn_of_certificates();
            }
        });
        let _ = looked.await;
    }
}
