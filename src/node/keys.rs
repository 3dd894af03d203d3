//! From `[auth]` to the rules of the door: reads the files with keys, and says what is wrong with them.
//!
//! Files are read at start and on SIGHUP. What is wrong names the key, the file and what was expected, and
//! nothing of a secret is ever told.

use std::fs;

use aws_lc_rs::rand;

use crate::auth::{
    Access, ClaimNames, Consult, Deliver, Grants, Key, KeySet, Mode, OriginRule, OriginRules,
    ProofRules, Reporting, Revocation, Source, SourceRules, Ticket, TicketKey, TokenError,
    TokenRules, Verifier, Who, mint, mint_shared,
};
use crate::base::secret::Secret;
use crate::base::tidings::TidingKinds;
use crate::node::config::Config;
use crate::node::config::auth::{Auth, AuthMode};
use crate::node::config::hook::{AuthWebhook, OnFailure};
use crate::node::config::values::Namespace;
use crate::node::running::{LaunchError, Node};
use crate::node::schemas;
use crate::shard::{Mail, Settings};
use crate::sys::clock::unix_millis;

/// A file with a key has no more bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads what the configuration names, without using it.
///
/// # Errors
/// The first file or secret that is no key.
pub(super) fn check_keys(config: &Config) -> Result<(), LaunchError> {
    keys(&config.auth).map(|_| ())
}

/// Puts the door's rules and keys, and what else stands in files, into a shard's settings.
pub(super) fn furnish(
    settings: &mut Settings,
    config: &Config,
    tickets: &TicketKey,
) -> Result<(), LaunchError> {
    settings.own_keys = keys(&config.auth)?;
    let mut access = Access { report: report(config), ..rules(&config.auth) };
    access.verifier.keys = settings.own_keys.clone();
    access.tickets = access.sources.has(Source::Ticket).then(|| tickets.clone());
    settings.access = access.into();
    settings.rooms.schemas = schemas::compile(config)?;
    Ok(())
}

/// Who may join and publish where no namespace says otherwise.
pub(super) fn default_who(config: &Config) -> Who {
    match config.auth.door.mode {
        AuthMode::Local | AuthMode::Open => Who::Anyone,
        AuthMode::Token => Who::Granted,
    }
}

/// The pages that a namespace is for, where it is not for all.
pub(super) fn origins(namespace: &Namespace) -> Option<OriginRules> {
    let given = namespace.origins.iter();
    // The configuration takes only what can be read.
    let allowed: Vec<OriginRule> = given.filter_map(|rule| OriginRule::parse(rule).ok()).collect();
    (!allowed.is_empty()).then(|| OriginRules { allowed, ..OriginRules::default() })
}

/// The rules of the door, without keys.
pub(super) fn rules(auth: &Auth) -> Access {
    let (door, tokens) = (&auth.door, &auth.tokens);
    let allowed = door.allowed_origins.iter();
    Access {
        mode: match door.mode {
            AuthMode::Local | AuthMode::Open => Mode::Open,
            AuthMode::Token => Mode::Token,
        },
        verifier: Verifier {
            keys: KeySet::default(),
            rules: TokenRules {
                max_bytes: tokens.max_bytes as usize,
                leeway: tokens.leeway.as_secs(),
                require_expiry: tokens.require_expiry,
                audiences: tokens.audiences.clone(),
                issuers: tokens.issuers.clone(),
                names: ClaimNames {
                    user: tokens.user_claim.clone(),
                    tenant: tokens.tenant_claim.clone(),
                    rooms: tokens.rooms_claim.clone(),
                    limits: tokens.limits_claim.clone(),
                    metadata: tokens.metadata_claim.clone(),
                    deny: tokens.deny_claim.clone(),
                },
                metadata_bytes: match &auth.presence {
                    presence if presence.metadata => usize::from(presence.max_metadata_bytes),
                    _ => 0,
                },
            },
        },
        sources: SourceRules { order: door.sources.clone(), cookie: door.cookie.clone() },
        origins: OriginRules {
            // The configuration takes only what can be read.
            allowed: allowed.filter_map(|rule| OriginRule::parse(rule).ok()).collect(),
            required: door.require_origin,
            cookies: door.mode == AuthMode::Token
                && door.sources.iter().any(|source| source.is_ambient()),
        },
        certified: Grants::of_patterns(&door.certificate_rooms),
        tickets: None,
        browser_errors: door.browser_errors,
        reauth_before: door.reauth_before,
        max_revocations: door.max_revocations as usize,
        consult: consult(&auth.webhook),
        report: Reporting::default(),
        proofs: ProofRules {
            above_us: (auth.checks.threads > 0).then_some(auth.checks.inline_us),
            most_waiting: auth.checks.waiting as usize,
        },
    }
}

/// What back ends are told.
pub(super) fn report(config: &Config) -> Reporting {
    let of = |namespace: &Namespace| (namespace.pattern.clone(), namespace.deliver);
    let all = &config.lists.namespaces;
    let is_plain = all.iter().all(|namespace| namespace.deliver == Deliver::Members);
    let hooks = config.lists.webhooks.iter();
    Reporting {
        kinds: hooks
            .map(|hook| TidingKinds::of(&hook.events))
            .fold(TidingKinds::default(), TidingKinds::and),
        deliver: if is_plain { Vec::new() } else { all.iter().map(of).collect() },
    }
}

/// What the application's back end is asked, if there is one to ask.
fn consult(hook: &AuthWebhook) -> Option<Consult> {
    (!hook.url.is_empty()).then_some(Consult {
        connect: hook.connect,
        lenient: hook.fail == OnFailure::Allow,
        most_waiting: hook.waiting as usize + usize::from(hook.concurrent),
        allowed_for: hook.allowed_for,
        refused_for: hook.refused_for,
        remembered: hook.remembered as usize,
    })
}

fn keys(auth: &Auth) -> Result<KeySet, LaunchError> {
    let given = &auth.keys;
    let mut keys = Vec::new();
    let wrong = |name: &str, why: &dyn std::fmt::Display| LaunchError::new(name, why);
    if !given.secret.is_empty() {
        let secret = given.secret.expose().as_bytes();
        let key = Key::from_secret(given.secret_algorithm, secret, None);
        keys.push(key.map_err(|why| wrong("auth.secret = \"***\"", &why))?);
    }
    if !given.secret_file.is_empty() {
        let name = format!("auth.secret_file = {:?}", given.secret_file);
        let text = read(&name, &given.secret_file)?;
        let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
        let secret = &text[..end.map_or(0, |at| at + 1)];
        let key = Key::from_secret(given.secret_algorithm, secret, None);
        keys.push(key.map_err(|why| wrong(&name, &why))?);
    }
    for file in &given.public_key_files {
        let name = format!("auth.public_key_files = {file:?}");
        let key = Key::from_pem(&read(&name, file)?, None);
        keys.push(key.map_err(|why| wrong(&name, &why))?);
    }
    let mut set = KeySet::new(keys).map_err(|why| wrong("auth", &why))?;
    if !given.jwks_file.is_empty() {
        let name = format!("auth.jwks_file = {:?}", given.jwks_file);
        let more = KeySet::from_jwks(&read(&name, &given.jwks_file)?);
        set = more.and_then(|more| set.and(more)).map_err(|why| wrong(&name, &why))?;
    }
    Ok(set)
}

fn read(name: &str, file: &str) -> Result<Vec<u8>, LaunchError> {
    let failed = |error: std::io::Error| LaunchError::new(name, format!("cannot be read: {error}"));
    let length = fs::metadata(file).map_err(failed)?.len();
    if length > MAX_FILE_BYTES {
        let why =
            format!("expected a file of at most {MAX_FILE_BYTES} bytes, this one has {length}");
        return Err(LaunchError::new(name, why));
    }
    fs::read(file).map_err(failed)
}

/// A secret that stands in the configuration, or in the file that `key` names.
pub(super) fn secret(key: &str, file: &str, own: &Secret) -> Result<Secret, LaunchError> {
    if file.is_empty() {
        return Ok(own.clone());
    }
    let text = read(&format!("{key} = {file:?}"), file)?;
    Ok(Secret::new(String::from_utf8_lossy(&text).trim()))
}

/// A key for the tickets of one run of the node: those of an earlier run are void. With it stands the one that the
/// nodes share, where they do.
pub(super) fn ticket_key(config: &Config) -> Result<TicketKey, LaunchError> {
    let mut random = [0; 32];
    rand::fill(&mut random)
        .map_err(|_| LaunchError::new("tickets", "the system has no random numbers"))?;
    let (own, key) = (&config.inside.bridge, TicketKey::new(&random));
    let shared = secret("bridge.ticket_secret_file", &own.ticket_secret_file, &own.ticket_secret)?;
    match shared.expose().len() {
        0 if own.ticket_secret_file.is_empty() => Ok(key),
        0..SHORTEST_TICKET_SECRET => Err(LaunchError::new(
            "bridge.ticket_secret",
            format!("expected at least {SHORTEST_TICKET_SECRET} bytes"),
        )),
        _ => Ok(key.shared_with(&own.prefix, shared.expose().as_bytes())),
    }
}

/// Whoever guesses it makes tickets for anybody.
const SHORTEST_TICKET_SECRET: usize = 32;

/// Mints a ticket with a number of its own that ends at `expires`, in seconds since 1970; for all nodes, in this
/// era, or for this one.
pub(super) fn mint_ticket(
    key: &TicketKey,
    claims: &str,
    expires: u64,
    era: Option<u32>,
) -> Result<String, TokenError> {
    let mut id = [0; 16];
    rand::fill(&mut id).map_err(|_| TokenError::Ticket)?;
    if let Some(era) = era {
        id[..4].copy_from_slice(&era.to_be_bytes());
    }
    let ticket = Ticket { id: u128::from_be_bytes(id), expires };
    if era.is_some() { mint_shared(key, claims, ticket) } else { mint(key, claims, ticket) }
}

/// The era of a ticket for all nodes.
pub(super) fn era_of(id: u128) -> u32 {
    u32::try_from(id >> 96).unwrap_or_default()
}

impl Node {
    /// Closes whom this takes, on every shard, and lets nobody in whom it takes.
    pub fn revoke(&self, revocation: Revocation) {
        let revocation = std::sync::Arc::new(revocation);
        self.post_all(|| Mail::Revoke(revocation.clone()));
    }

    /// Checks tokens with these keys too, in place of those given before by this.
    pub fn take_keys(&self, keys: KeySet) {
        let keys = std::sync::Arc::new(keys);
        self.post_all(|| Mail::Keys(keys.clone()));
    }

    /// Mints a one-time ticket for these claims, written as a token's are under the names that are used by
    /// default. It ends after `life` seconds; [`TicketKey::LIFE`] is a good number.
    ///
    /// # Errors
    /// When the claims say something they cannot.
    pub fn mint_ticket(&self, claims: &str, life: u64) -> Result<String, TokenError> {
        mint_ticket(&self.tickets, claims, (unix_millis() / 1000).saturating_add(life), None)
    }
}
