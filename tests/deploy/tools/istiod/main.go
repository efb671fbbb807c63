// istiod generates what istiod would send to proxies: Istio's own control plane, in one process and without a cluster.
//
// On standard input is a world, {"kubernetes": "YAML", "istio": "YAML", "mesh": "MeshConfig as YAML", "proxies": [{"name": …}]}; in the
// file that is its argument then a config dump per proxy, {"name": {"configs": […]}}, in the form that Envoy's admin page has.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	admin "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config/mesh"
)

type world struct {
	Kubernetes string   `json:"kubernetes"`
	Istio      string   `json:"istio"`
	Mesh       string   `json:"mesh"`
	Proxies    []*proxy `json:"proxies"`
}

type proxy struct {
	Name           string            `json:"name"`
	Type           model.NodeType    `json:"type"`
	Namespace      string            `json:"namespace"`
	ServiceAccount string            `json:"serviceAccount"`
	Address        string            `json:"address"`
	Labels         map[string]string `json:"labels"`
	Annotations    map[string]string `json:"annotations"`
}

// The control plane is made for tests, and wants one: whatever it says ends this.
type failer struct{ cleanups []func() }

func (f *failer) Fail()                         { f.Fatal("failed") }
func (f *failer) FailNow()                      { f.Fatal("failed") }
func (f *failer) Fatal(args ...any)             { fmt.Fprintln(os.Stderr, args...); os.Exit(1) }
func (f *failer) Fatalf(form string, a ...any)  { f.Fatal(fmt.Sprintf(form, a...)) }
func (f *failer) Log(args ...any)               { fmt.Fprintln(os.Stderr, args...) }
func (f *failer) Logf(form string, args ...any) { f.Log(fmt.Sprintf(form, args...)) }
func (f *failer) TempDir() string               { return os.TempDir() }
func (f *failer) Helper()                       {}
func (f *failer) Cleanup(each func())           { f.cleanups = append(f.cleanups, each) }
func (f *failer) Skip(args ...any)              { f.Fatal(args...) }

func main() {
	t := &failer{}
	var in world
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		t.Fatal(err)
	}
	config, err := mesh.ApplyMeshConfigDefaults(in.Mesh)
	if err != nil {
		t.Fatal(err)
	}
	server := xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
		KubernetesObjectString: in.Kubernetes,
		ConfigString:           in.Istio,
		MeshConfig:             config,
	})
	out := map[string]json.RawMessage{}
	for _, proxy := range in.Proxies {
		out[proxy.Name] = proxy.dump(t, server)
	}
	text, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	// Not standard output: Istio logs there.
	if err := os.WriteFile(os.Args[1], text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *proxy) dump(t *failer, server *xds.FakeDiscoveryServer) json.RawMessage {
	node := server.SetupProxy(&model.Proxy{
		Type:            p.Type,
		ID:              p.Name + "." + p.Namespace,
		ConfigNamespace: p.Namespace,
		IPAddresses:     []string{p.Address},
		Labels:          p.Labels,
		Metadata: &model.NodeMetadata{
			// A version of its own kind of release: what is new in it is there.
			IstioVersion:   "1.31.0",
			Namespace:      p.Namespace,
			Labels:         p.Labels,
			Annotations:    p.Annotations,
			ServiceAccount: p.ServiceAccount,
			ClusterID:      "Kubernetes",
		},
	})
	pack := func(message proto.Message) *anypb.Any {
		packed, err := anypb.New(message)
		if err != nil {
			t.Fatal(err)
		}
		return packed
	}
	listeners := &admin.ListenersConfigDump{}
	built := server.Listeners(node)
	for _, one := range built {
		listeners.DynamicListeners = append(listeners.DynamicListeners, &admin.ListenersConfigDump_DynamicListener{
			Name:        one.Name,
			ActiveState: &admin.ListenersConfigDump_DynamicListenerState{Listener: pack(one)},
		})
	}
	clusters := &admin.ClustersConfigDump{}
	for _, one := range server.Clusters(node) {
		clusters.DynamicActiveClusters = append(clusters.DynamicActiveClusters, &admin.ClustersConfigDump_DynamicCluster{Cluster: pack(one)})
	}
	routes := &admin.RoutesConfigDump{}
	for _, one := range server.RoutesFromListeners(node, built) {
		routes.DynamicRouteConfigs = append(routes.DynamicRouteConfigs, &admin.RoutesConfigDump_DynamicRouteConfig{RouteConfig: pack(one)})
	}
	all := &admin.ConfigDump{Configs: []*anypb.Any{pack(clusters), pack(listeners), pack(routes)}}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
