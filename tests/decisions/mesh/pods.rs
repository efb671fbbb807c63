//! Pods in which something goes around the proxy, or is something else than it is called.

use std::collections::BTreeSet;

use super::{Break, ISTIO, broken};

/// The container of Palisade, and the server's.
const PALISADE: &str = "        - name: palisade\n          image: palisade\n";
const SERVER: &str = "        - name: crm\n          image: crm\n          ports: [{ containerPort: 8080 }]\n";
const SPEC: &str = "      containers:\n        - name: crm";

const BREAKS: &[Break] = &[
    // What the injector adds, and what becomes of its proxy.
    ("annotations: {}", "annotations: { inject.istio.io/templates: grpc-agent }", &["not-captured"]),
    ("annotations: {}", "annotations: { inject.istio.io/templates: \"\" }", &["not-captured"]),
    ("annotations: {}", "annotations: { inject.istio.io/templates: \"sidecar, mine\" }", &["unreadable"]),
    ("annotations: {}", "annotations: { inject.istio.io/templates: \"sidecar,palisade\" }", &[]),
    ("annotations: {}", "annotations: { sidecar.istio.io/bootstrapOverride: mine }", &["unreadable"]),
    ("annotations: {}", "annotations: { sidecar.istio.io/proxyImage: \"mine:1\" }", &["unreadable"]),
    ("annotations: {}", "annotations: { traffic.sidecar.istio.io/kubevirtInterfaces: eth0 }", &["excluded-port"]),
    // The proxy's number in any form, or one that nobody can compare.
    ("runAsUser: 1000", "runAsUser: \"1337\"", &["proxy-user"]),
    ("runAsUser: 1000", "runAsUser: 0x539", &["unreadable"]),
    ("runAsUser: 1000", "runAsUser: 02471", &["unreadable"]),
    ("runAsUser: 1000", "runAsUser: 1_337", &["unreadable"]),
    ("runAsUser: 1000", "runAsUser: +1337", &["unreadable"]),
    ("runAsUser: 1000", "runAsUser: 0", &[]),
    ("runAsUser: 65532", "runAsUser: 1337", &["proxy-user"]),
    (SPEC, "      securityContext: { fsGroup: 1337 }\n      containers:\n        - name: crm", &["proxy-user"]),
    (
        SPEC,
        "      securityContext: { supplementalGroups: [1, 1337] }\n      containers:\n        - name: crm",
        &["proxy-user"],
    ),
    (
        SPEC,
        "      securityContext: { supplementalGroups: [0x539] }\n      containers:\n        - name: crm",
        &["unreadable"],
    ),
    (
        SPEC,
        "      securityContext: { fsGroup: 65532, supplementalGroups: [1] }\n      containers:\n        - name: crm",
        &[],
    ),
    (SPEC, "      hostPID: true\n      containers:\n        - name: crm", &["proxy-user"]),
    (SPEC, "      shareProcessNamespace: true\n      containers:\n        - name: crm", &["proxy-user"]),
    ("runAsUser: 1000", "capabilities: { add: [net_admin] }", &["proxy-user"]),
    ("runAsUser: 1000", "capabilities: { add: [Cap_Sys_Ptrace] }", &["proxy-user"]),
    ("runAsUser: 1000", "capabilities: { add: [all] }", &["proxy-user"]),
    ("runAsUser: 1000", "capabilities: { add: [NET_BIND_SERVICE] }", &[]),
    // Names alone make nobody the proxy, or Palisade.
    (
        PALISADE,
        "        - { name: istio-validation, image: mine, securityContext: { runAsUser: 1337 } }\n        - name: palisade\n          image: palisade\n",
        &["proxy-user", "unreadable"],
    ),
    (
        PALISADE,
        "        - { name: istio-proxy, image: auto, command: [mine] }\n        - name: palisade\n          image: palisade\n",
        &["unreadable"],
    ),
    (
        PALISADE,
        "        - { name: istio-proxy, image: auto, args: [mine] }\n        - name: palisade\n          image: palisade\n",
        &["unreadable"],
    ),
    (
        PALISADE,
        "        - { name: istio-proxy, image: auto, securityContext: { privileged: true } }\n        - name: palisade\n          image: palisade\n",
        &["proxy-user"],
    ),
    (
        PALISADE,
        "        - { name: istio-proxy, image: \"r.example/istio/proxyv2:1.30.0\", args: [proxy, sidecar], securityContext: { runAsUser: 1337, runAsGroup: 1337 } }\n        - name: palisade\n          image: palisade\n",
        &[],
    ),
    (
        SPEC,
        "      initContainers: [{ name: istio-init, image: proxyv2, args: [istio-iptables], securityContext: { runAsUser: 0, capabilities: { add: [NET_ADMIN, NET_RAW] } } }]\n      containers:\n        - name: crm",
        &[],
    ),
    (
        SPEC,
        "      initContainers: [{ name: istio-init, image: proxyv2, securityContext: { capabilities: { add: [SYS_ADMIN] } } }]\n      containers:\n        - name: crm",
        &["proxy-user"],
    ),
    (
        SPEC,
        "      initContainers: [{ name: palisade-bundle, image: palisade, args: [bundle, fetch], securityContext: { runAsGroup: 1337 } }]\n      containers:\n        - name: crm",
        &[],
    ),
    ("          args: [serve]\n", "", &["proxy-user"]),
    ("          args: [serve]\n", "          args: [serve]\n          command: [mine]\n", &["proxy-user"]),
    (
        "          args: [serve]\n",
        "          args: [serve]\n          ports: [{ containerPort: 8081 }]\n",
        &["proxy-user"],
    ),
    (PALISADE, "        - name: palisade\n          image: crm\n", &["proxy-user"]),
];

/// The same where no policy is about the pod: whoever takes calls needs one.
const UNCHECKED: &[Break] = &[
    (
        SERVER,
        "        - name: palisade\n          image: crm\n          ports: [{ containerPort: 8080 }]\n",
        &["unchecked"],
    ),
    (
        "      containers:\n        - name: crm\n          image: crm\n          ports: [{ containerPort: 8080 }]\n",
        "      initContainers: [{ name: served, image: crm, restartPolicy: Always, ports: [{ containerPort: 8080 }] }]\n      containers:\n        - name: crm\n          image: crm\n",
        &["unchecked"],
    ),
    ("apiVersion: apps/v1\nkind: Deployment", "apiVersion: v1\nkind: ReplicationController", &["unchecked"]),
    // What ends before it serves, and what is the proxy's, takes no calls.
    (
        "      containers:\n        - name: crm\n          image: crm\n          ports: [{ containerPort: 8080 }]\n",
        "      initContainers: [{ name: once, image: crm, ports: [{ containerPort: 8080 }] }, { name: istio-proxy, image: auto, restartPolicy: Always, ports: [{ containerPort: 15090 }] }]\n      containers:\n        - name: crm\n          image: crm\n",
        &[],
    ),
];

#[test]
fn nothing_in_a_pod_goes_around_its_proxy() {
    let (mut found, mut wrong) = (BTreeSet::new(), String::new());
    broken(ISTIO, BREAKS, &mut found, &mut wrong);
    // Elsewhere is what no policy is about; without ports nothing there has to be.
    let elsewhere = ISTIO.replace("metadata: { name: crm }", "metadata: { name: crm, namespace: elsewhere }");
    for (old, new, expected) in UNCHECKED {
        let report = super::look(&elsewhere.replacen(old, new, 1)).unwrap();
        if super::codes(&report) != expected.iter().copied().collect() {
            wrong += &format!("{old} -> {new}: expected {expected:?}\n{}\n", report.text());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
