//! Envoy's own configuration: a bootstrap, or what `/config_dump` of a running one says. From each listener that faces callers to
//! each filter chain, and through its filters to its routes.

mod connection_manager;
mod ext_authz;
mod listeners;
mod routes;
mod tls;
mod version;

use std::collections::BTreeMap;

use super::Settings;
use super::finding::{Finder, Rule};
use super::node::Node;

use listeners::{BEHIND_TUNNEL, Facing, facing};

pub use connection_manager::{
    HARMLESS_AFTER, ends, forwarded as check_forwarded, settings as check_connection_manager,
    upgrades as check_upgrades,
};
pub use ext_authz::{Extent, check as check_ext_authz, check_body, check_connections, check_timeout};
pub use routes::check as check_routes;
pub use version::{Version, check as check_version};

/// What is known of one Envoy.
pub(super) struct Envoy<'n> {
    role: Role,
    listeners: Vec<&'n Node>,
    clusters: Vec<&'n Node>,
    /// Route configurations by name, where they come over RDS: all of one name, for nobody knows which one is in force.
    routes: BTreeMap<&'n str, Vec<&'n Node>>,
    /// Filters by name, where they come over ECDS; likewise.
    filters: BTreeMap<&'n str, Vec<&'n Node>>,
    /// Who it is, and in which version.
    node: &'n Node,
    /// Whether it was running: then everything that came to it is here.
    is_dump: bool,
}

/// As what Istio runs it. Without Istio it is `Plain`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Plain,
    Sidecar,
    Gateway,
    Waypoint,
}

/// The listener of a sidecar to which everything comes that is captured.
const CAPTURED: &str = "virtualInbound";
/// Where Istio sends what goes nowhere: a cluster without endpoints.
const NOWHERE: &str = "BlackHoleCluster";

/// Whether this is a configuration of Envoy.
#[must_use]
pub fn is_envoy(root: &Node) -> bool {
    root.get("static_resources").is_there() || is_dump(root)
}

fn is_dump(root: &Node) -> bool {
    root.get("configs").items().iter().any(|config| config.exact("@type").text().ends_with("ConfigDump"))
}

/// Checks all of it.
pub fn check(root: &Node, finder: &mut Finder<'_>, settings: &Settings) {
    finder.count("Envoys");
    let envoy = Envoy::of(root, finder);
    check_version(envoy.node, settings, finder);
    let mut is_any = envoy.role == Role::Plain && !envoy.listeners.is_empty();
    for listener in &envoy.listeners {
        let place = format!("listener {}", name_of(listener));
        match facing(envoy.role, listener) {
            Facing::Callers => {
                is_any = true;
                finder.count("listeners");
                envoy.listener(listener, &place, finder, settings);
            }
            Facing::Nobody => finder.skip(format!("{}: {place}, which faces no callers", finder.file)),
            Facing::Unknown => finder.add(Rule::Unreadable, listener.line, &place, "Istio makes no such listener"),
        }
    }
    envoy.reachable(finder);
    if envoy.faces_callers() {
        envoy.upstream(finder);
    }
    if !is_any {
        finder.add(Rule::Unreadable, root.line, "listeners", "there is none that faces callers");
    }
}

impl<'n> Envoy<'n> {
    fn of(root: &'n Node, finder: &mut Finder<'_>) -> Self {
        let is_dump = is_dump(root) && !root.get("static_resources").is_there();
        let mut envoy = Self {
            role: Role::Plain,
            listeners: Vec::new(),
            clusters: Vec::new(),
            routes: BTreeMap::new(),
            filters: BTreeMap::new(),
            node: root.at("node"),
            is_dump,
        };
        if !is_dump {
            envoy.listeners.extend(root.at("static_resources.listeners").items());
            envoy.clusters.extend(root.at("static_resources.clusters").items());
            if root.get("dynamic_resources").is_there() {
                let what = "configuration that comes over xDS is not in this file: a config dump has it";
                finder.add(Rule::Unreadable, root.get("dynamic_resources").line, "dynamic_resources", what);
            }
        }
        let mut has_bootstrap = !is_dump;
        for config in root.get("configs").items() {
            has_bootstrap |= config.get("bootstrap").is_there();
            if config.get("bootstrap").is_there() {
                envoy.node = config.at("bootstrap.node");
            }
            envoy.take(config);
        }
        // What a file calls itself and its listeners anybody can write; a dump is of what runs.
        if is_dump {
            envoy.role = envoy.role();
        }
        // As what it runs is a part of its bootstrap: then nobody knows which of its listeners face callers.
        let is_outbound = |listener: &Node| listener.get("traffic_direction").text() == "OUTBOUND";
        let is_known = |listener: &Node| facing(envoy.role, listener) == Facing::Callers && !is_outbound(listener);
        if !has_bootstrap && !envoy.listeners.iter().any(|listener| is_known(listener)) {
            let what = "it has no listener that faces callers, as far as a dump without the bootstrap tells";
            finder.add(Rule::Unreadable, root.line, "bootstrap", what);
        }
        envoy
    }

    fn role(&self) -> Role {
        let runs = |name: &str| self.listeners.iter().any(|listener| name_of(listener) == name);
        match self.node.get("id").text().split('~').next() {
            Some("sidecar") => Role::Sidecar,
            Some("router") => Role::Gateway,
            Some("waypoint") => Role::Waypoint,
            _ if runs(BEHIND_TUNNEL) => Role::Waypoint,
            _ if runs(CAPTURED) => Role::Sidecar,
            _ => Role::Plain,
        }
    }

    fn take(&mut self, config: &'n Node) {
        let each = |name: &str| config.get(name).items().iter();
        self.listeners.extend(each("static_listeners").map(|listener| listener.get("listener")));
        for listener in each("dynamic_listeners") {
            // What is warming takes no calls yet, but will.
            let states = ["active_state", "warming_state"].map(|state| listener.get(state).get("listener"));
            self.listeners.extend(states.into_iter().filter(|listener| listener.is_there()));
        }
        let clusters =
            ["static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"].into_iter().flat_map(each);
        self.clusters.extend(clusters.map(|cluster| cluster.get("cluster")));
        for routes in each("static_route_configs").chain(each("dynamic_route_configs")) {
            let routes = routes.get("route_config");
            self.routes.entry(routes.get("name").text()).or_default().push(routes);
        }
        for filter in each("ecds_filters") {
            let filter = filter.get("ecds_filter");
            self.filters.entry(filter.get("name").text()).or_default().push(filter);
        }
    }

    /// Whether something that this Envoy carries leads to whom it asks: then whoever may call through it can ask as well.
    fn reachable(&self, finder: &mut Finder<'_>) {
        let mut asked: Vec<&str> = Vec::new();
        for listener in &self.listeners {
            listener.each(&mut |node| {
                if typed(node).is_some_and(|(kind, _)| kind.ends_with("ext_authz.v3.ExtAuthz")) {
                    asked.push(node.at("typed_config.grpc_service.envoy_grpc.cluster_name").text());
                }
            });
        }
        asked.retain(|cluster| !cluster.is_empty());
        asked.sort_unstable();
        asked.dedup();
        let mut told = Vec::new();
        for node in self.listeners.iter().chain(self.routes.values().flatten()) {
            let place = name_of(node);
            node.each(&mut |node| {
                let cluster = node.get("cluster").text();
                if asked.contains(&cluster) && !told.contains(&(place, cluster)) {
                    told.push((place, cluster));
                    finder.add(Rule::Reachable, node.line, place, format!("leads to cluster {cluster}"));
                }
            });
        }
    }

    fn faces_callers(&self) -> bool {
        self.listeners.iter().any(|listener| facing(self.role, listener) == Facing::Callers)
    }

    /// Checks what calls go through after their route was chosen.
    fn upstream(&self, finder: &mut Finder<'_>) {
        for cluster in &self.clusters {
            let place = format!("cluster {}", name_of(cluster));
            cluster.each(&mut |node| {
                connection_manager::upstream(self, node.get("http_filters").items(), &place, finder);
            });
            let header = cluster.at("original_dst_lb_config.use_http_header");
            if header.is_true() {
                finder.add(Rule::ChosenByCaller, header.line, &place, "use_http_header: true");
            }
        }
    }

    /// Whether what goes to that cluster ends there.
    fn is_nowhere(&self, name: &str) -> bool {
        let mut clusters = self.clusters.iter().filter(|cluster| cluster.get("name").text() == name).peekable();
        self.role != Role::Plain
            && name == NOWHERE
            && clusters.peek().is_some()
            && clusters.all(|cluster| {
                let kind = cluster.get("type");
                (!kind.is_there() || kind.is_enum("STATIC", 0))
                    && !["cluster_type", "hosts"].iter().any(|name| cluster.get(name).is_there())
                    && cluster.at("load_assignment.endpoints").items().is_empty()
            })
    }

    fn listener(&self, listener: &Node, place: &str, finder: &mut Finder<'_>, settings: &Settings) {
        let chains = listener
            .get("filter_chains")
            .items()
            .iter()
            .chain(Some(listener.get("default_filter_chain")).filter(|chain| chain.is_there()));
        let mut count = 0;
        for (number, chain) in chains.enumerate() {
            count += 1;
            let name = chain.get("name").text();
            let chain_place =
                if name.is_empty() { format!("{place}, chain {number}") } else { format!("{place}, chain {name}") };
            self.chain(chain, &chain_place, finder, settings);
        }
        let is_udp = |filter: &&Node| typed(filter).is_some_and(|(kind, _)| kind.contains(".filters.udp."));
        if let Some(filter) = listener.get("listener_filters").items().iter().find(is_udp) {
            finder.add(Rule::Unreadable, filter.line, place, format!("{} takes datagrams", name_of(filter)));
        } else if count == 0 {
            finder.add(Rule::Unreadable, listener.line, place, "it has no filter chains");
        }
    }

    fn chain(&self, chain: &Node, place: &str, finder: &mut Finder<'_>, settings: &Settings) {
        finder.count("filter chains");
        let mut is_checked = false;
        let filters = chain.get("filters").items();
        for (number, filter) in filters.iter().enumerate() {
            let Some((kind, config)) = self.typed(filter) else {
                finder.add(Rule::Unreadable, filter.line, place, format!("filter {}", name_of(filter)));
                continue;
            };
            if kind.ends_with("network.ext_authz.v3.ExtAuthz") {
                is_checked = true;
                ext_authz::check_connections(config, Extent::Whole, place, finder);
                ext_authz::check_selection(config, filters.get(..number).unwrap_or_default(), place, finder);
            } else if kind.ends_with("HttpConnectionManager") {
                self.encryption(chain, connection_manager::by_uri_san(config).next().is_some(), place, finder);
                connection_manager::check(self, config, place, finder, settings);
                return;
            } else if kind.ends_with("TcpProxy") {
                let cluster = config.get("cluster").text();
                if self.is_nowhere(cluster) {
                    return;
                }
                self.encryption(chain, false, place, finder);
                if !is_checked {
                    finder.add(Rule::UncheckedConnection, filter.line, place, format!("to cluster {cluster}"));
                }
                return;
            }
        }
        // Without a filter at its end a connection is closed.
        if let Some(last) = filters.last() {
            let what = format!("ends in {}, which is neither HTTP nor a proxy of connections", name_of(last));
            finder.add(Rule::Unreadable, last.line, place, what);
        }
    }

    fn encryption(&self, chain: &Node, has_uri_san: bool, place: &str, finder: &mut Finder<'_>) {
        // What comes out of a waypoint's tunnel was encrypted outside of it.
        if self.role != Role::Waypoint {
            tls::check(chain, has_uri_san, place, finder);
        }
    }

    /// The type of a filter's configuration, without the host before it, and the configuration.
    fn typed(&self, filter: &'n Node) -> Option<(&'n str, &'n Node)> {
        if filter.get("config_discovery").is_there() {
            let found = self.filters.get(name_of(filter)).map_or(&[][..], Vec::as_slice);
            return if let [one] = found { typed(one) } else { None };
        }
        typed(filter)
    }
}

/// The type of what `node` configures, and that configuration, also if it is written as a struct with its type beside.
#[must_use]
pub fn typed(node: &Node) -> Option<(&str, &Node)> {
    let config = node.get("typed_config");
    let kind = config.exact("@type").text();
    let (kind, config) = if kind.ends_with("TypedStruct") {
        (config.get("type_url").text(), config.get("value"))
    } else {
        (kind, config)
    };
    let kind = kind.rsplit_once('/').map_or(kind, |(_, kind)| kind);
    (!kind.is_empty()).then_some((kind, config))
}

fn name_of(node: &Node) -> &str {
    let name = node.get("name").text();
    if name.is_empty() { "(without a name)" } else { name }
}
