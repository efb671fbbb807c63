// Admission says what ValidatingAdmissionPolicies make of pods, with the API server's own code.
//
//	admission POLICIES < PODS
//
// POLICIES is a file of YAML documents, of which those of other kinds are passed over. PODS is a JSON array of
// {"object": POD, "subresource": ""}, with "old" beside it where a pod is changed. The answer is an array as long, of the messages by which each is refused.
// What is new in CEL since the oldest Kubernetes of the chart is refused, and so is a pod with a field that there is not.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	gocel "github.com/google/cel-go/cel"
	celtypes "github.com/google/cel-go/common/types"
	requestv1 "k8s.io/api/admission/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

// The chart's kubeVersion.
var oldest = version.MajorMinor(1, 30)

var (
	pods = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	kind = schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
)

func main() {
	if err := run(os.Args[1], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "admission:", err)
		os.Exit(1)
	}
}

func run(file string, in io.Reader, out io.Writer) error {
	policies, err := read(file)
	if err != nil {
		return err
	}
	var asked []struct {
		Object      corev1.Pod  `json:"object"`
		Old         *corev1.Pod `json:"old"`
		Subresource string      `json:"subresource"`
	}
	decoder := json.NewDecoder(in)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil {
		return err
	}
	answers := make([][]string, len(asked))
	for i := range asked {
		answers[i] = []string{}
		for _, one := range policies {
			messages, err := one.refusals(&asked[i].Object, asked[i].Old, asked[i].Subresource)
			if err != nil {
				return fmt.Errorf("%s: %w", one.name, err)
			}
			answers[i] = append(answers[i], messages...)
		}
	}
	return json.NewEncoder(out).Encode(answers)
}

type policy struct {
	name        string
	matches     *admissionv1.MatchResources
	conditions  cel.ConditionEvaluator
	validations cel.ConditionEvaluator
}

// An expression of a policy: a variable, whose name is `name`, or one that has to be true, or else `name` is told.
type expression struct {
	name, text string
	types      []*gocel.Type
}

func (e expression) GetName() string            { return e.name }
func (e expression) GetExpression() string      { return e.text }
func (e expression) ReturnTypes() []*gocel.Type { return e.types }

var (
	anything = []*gocel.Type{gocel.AnyType, gocel.DynType}
	truth    = []*gocel.Type{gocel.BoolType}
)

// The policies of a file. One without a binding that denies would do nothing.
func read(file string) ([]policy, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var policies []policy
	bound := map[string]bool{}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal(document, &meta); err != nil {
			return nil, err
		}
		switch meta.Kind {
		case "ValidatingAdmissionPolicy":
			var object admissionv1.ValidatingAdmissionPolicy
			if err := yaml.UnmarshalStrict(document, &object); err != nil {
				return nil, err
			}
			compiled, err := compile(&object)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", object.Name, err)
			}
			policies = append(policies, compiled)
		case "ValidatingAdmissionPolicyBinding":
			var object admissionv1.ValidatingAdmissionPolicyBinding
			if err := yaml.UnmarshalStrict(document, &object); err != nil {
				return nil, err
			}
			bound[object.Spec.PolicyName] = slices.Contains(object.Spec.ValidationActions, admissionv1.Deny) && object.Spec.MatchResources == nil
		}
	}
	for _, one := range policies {
		if !bound[one.name] {
			return nil, fmt.Errorf("%s has no binding that denies everywhere", one.name)
		}
	}
	return policies, nil
}

// As the API server does it with a policy that is new to it.
func compile(object *admissionv1.ValidatingAdmissionPolicy) (policy, error) {
	if object.Spec.FailurePolicy == nil || *object.Spec.FailurePolicy != admissionv1.Fail || object.Spec.ParamKind != nil {
		return policy{}, errors.New("expected failurePolicy Fail, and no parameters")
	}
	compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(oldest))
	if err != nil {
		return policy{}, err
	}
	none := cel.OptionalVariableDeclarations{}
	mode := environment.NewExpressions
	for _, one := range object.Spec.Variables {
		if result := compiler.CompileAndStoreVariable(expression{one.Name, one.Expression, anything}, none, mode); result.Error != nil {
			return policy{}, fmt.Errorf("variable %s: %s", one.Name, result.Error)
		}
	}
	var conditions, validations []cel.ExpressionAccessor
	for _, one := range object.Spec.MatchConditions {
		conditions = append(conditions, expression{one.Name, one.Expression, truth})
	}
	for _, one := range object.Spec.Validations {
		validations = append(validations, expression{one.Message, one.Expression, truth})
	}
	compiled := policy{
		name:        object.Name,
		matches:     object.Spec.MatchConstraints,
		conditions:  compiler.CompileCondition(conditions, none, mode),
		validations: compiler.CompileCondition(validations, none, mode),
	}
	return compiled, errors.Join(append(compiled.conditions.CompilationErrors(), compiled.validations.CompilationErrors()...)...)
}

func (p *policy) refusals(pod, old *corev1.Pod, subresource string) ([]string, error) {
	var before runtime.Object
	operation := admission.Create
	if old != nil {
		before, operation = old, admission.Update
	}
	concerned, err := p.concerns(pod.Namespace, subresource, admissionv1.OperationType(operation))
	if err != nil || !concerned {
		return nil, err
	}
	attributes := admission.NewAttributesRecord(pod, before, kind, pod.Namespace, pod.Name, pods, subresource, operation, nil, false, &user.DefaultInfo{})
	versioned, err := admission.NewVersionedAttributes(attributes, kind, nil)
	if err != nil {
		return nil, err
	}
	request := cel.CreateAdmissionRequest(attributes, metav1.GroupVersionResource(pods), metav1.GroupVersionKind(kind))
	unmet, err := untrue(p.conditions, versioned, request)
	if err != nil || len(unmet) > 0 {
		return nil, err
	}
	return untrue(p.validations, versioned, request)
}

// The names of those expressions that are not true of the pod.
func untrue(expressions cel.ConditionEvaluator, pod *admission.VersionedAttributes, request *requestv1.AdmissionRequest) ([]string, error) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: pod.GetNamespace()}}
	results, _, err := expressions.ForInput(context.Background(), pod, request, cel.OptionalVariableBindings{}, namespace, celconfig.RuntimeCELCostBudget)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, result := range results {
		name := result.ExpressionAccessor.(expression).name
		if result.Error != nil {
			return nil, fmt.Errorf("%s: %w", name, result.Error)
		}
		if result.EvalResult != celtypes.True {
			names = append(names, name)
		}
	}
	return names, nil
}

// Whether the namespace is selected, by the one label that the API server sets, and the resource is among the rules.
func (p *policy) concerns(namespace, subresource string, operation admissionv1.OperationType) (bool, error) {
	selector, err := metav1.LabelSelectorAsSelector(p.matches.NamespaceSelector)
	if err != nil {
		return false, err
	}
	resource := "pods"
	if subresource != "" {
		resource += "/" + subresource
	}
	listed := slices.ContainsFunc(p.matches.ResourceRules, func(rule admissionv1.NamedRuleWithOperations) bool {
		return slices.Contains(rule.Resources, resource) && slices.Contains(rule.Operations, operation)
	})
	return listed && selector.Matches(labels.Set{"kubernetes.io/metadata.name": namespace}), nil
}
