// strict-proto reads JSON as a protobuf message, strictly: a field that the message has not got, a value that its enum has not got or an
// `@type` that nobody knows is a mistake. Istio itself ignores such fields in an EnvoyFilter, and a misspelt setting would be silent.
//
// On standard input is one question per line, {"name": "what to call it", "type": "full.name.of.Message", "whole": true, "value": {…}}, on
// standard output one line per mistake. A message that is `whole` also has to satisfy the rules of its fields; a patch need not.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"

	// What may be named: a type that is not here is a mistake, so that this list is what the manifests use.
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/ssl/v3"
	_ "istio.io/api/mesh/v1alpha1"
	_ "istio.io/api/networking/v1alpha3"
	_ "istio.io/api/security/v1beta1"
	_ "istio.io/api/telemetry/v1alpha1"
)

type question struct {
	Name  string          `json:"name"`
	Type  string          `json:"type"`
	Whole bool            `json:"whole"`
	Value json.RawMessage `json:"value"`
}

func main() {
	failed, asked := false, 0
	input := bufio.NewReader(os.Stdin)
	for {
		line, end := input.ReadBytes('\n')
		if len(line) > 1 {
			asked++
			var question question
			err := json.Unmarshal(line, &question)
			if err == nil {
				err = question.check()
			}
			if err != nil {
				fmt.Printf("%s: %v\n", question.Name, err)
				failed = true
			}
		}
		if end == io.EOF {
			break
		} else if end != nil {
			fmt.Println(end)
			os.Exit(2)
		}
	}
	if failed || asked == 0 {
		os.Exit(1)
	}
}

func (q question) check() error {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(q.Type))
	if err != nil {
		return fmt.Errorf("%s: %w", q.Type, err)
	}
	message := kind.New().Interface()
	if err := (protojson.UnmarshalOptions{}).Unmarshal(q.Value, message); err != nil {
		return err
	}
	if q.Whole {
		return validate(message)
	}
	return nil
}

// validate holds a message, and all that it has in an Any, against the rules of its fields.
func validate(message proto.Message) error {
	if rules, has := message.(interface{ ValidateAll() error }); has {
		if err := rules.ValidateAll(); err != nil {
			return err
		}
	}
	var found error
	message.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		each := func(value protoreflect.Value) bool {
			found = validateInside(value.Message().Interface())
			return found == nil
		}
		switch {
		case field.IsMap():
			if field.MapValue().Message() != nil {
				value.Map().Range(func(_ protoreflect.MapKey, value protoreflect.Value) bool { return each(value) })
			}
		case field.Message() == nil:
		case field.IsList():
			for at := 0; at < value.List().Len() && each(value.List().Get(at)); at++ {
			}
		default:
			each(value)
		}
		return found == nil
	})
	return found
}

func validateInside(message proto.Message) error {
	if packed, is := message.(*anypb.Any); is {
		inside, err := packed.UnmarshalNew()
		if err != nil {
			return err
		}
		return validate(inside)
	}
	return validate(message)
}
