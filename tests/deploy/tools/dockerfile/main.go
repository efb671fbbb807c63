// Reads a Dockerfile as BuildKit does: parses it, asks BuildKit's own linter, and makes of it the graph that BuildKit would run.
// `dockerfile FOLDER` prints the image's configuration and the files that are sent as the build's context, as JSON; a warning
// is an error. It asks no registry: the images that are built on are taken to be there, and empty.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
)

type report struct {
	Warnings []string                   `json:"warnings"`
	Image    *dockerspec.DockerOCIImage `json:"image"`
	Context  []string                   `json:"context"`
}

// Every image that is built on is there, and says nothing of itself.
type anyImage struct{}

func (anyImage) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	config := []byte(`{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers"}, "config": {}}`)
	return ref, digest.FromBytes(config), config, nil
}

func main() {
	if len(os.Args) != 2 {
		fail("usage: dockerfile FOLDER")
	}
	found, err := read(os.Args[1])
	if err != nil {
		fail(err.Error())
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fail(err.Error())
	}
	if len(found.Warnings) > 0 {
		os.Exit(1)
	}
}

func read(folder string) (*report, error) {
	text, err := os.ReadFile(filepath.Join(folder, "Dockerfile"))
	if err != nil {
		return nil, err
	}
	found := &report{Warnings: []string{}}
	warn := func(rule, _, url, message string, at []parser.Range) {
		line := 0
		if len(at) > 0 {
			line = at[0].Start.Line
		}
		found.Warnings = append(found.Warnings, fmt.Sprintf("line %d: %s: %s (%s)", line, rule, message, url))
	}
	options := dockerfile2llb.ConvertOpt{MetaResolver: anyImage{}, Warn: warn, AllStages: true}
	built, err := dockerfile2llb.Dockerfile2LLB(context.Background(), text, options)
	if err != nil {
		return nil, err
	}
	if _, err := built.State.Marshal(context.Background()); err != nil {
		return nil, err
	}
	found.Image = built.Image
	found.Context, err = sent(folder)
	return found, err
}

// The files that a client sends.
func sent(folder string) ([]string, error) {
	file, err := os.Open(filepath.Join(folder, ".dockerignore"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	ignored, err := ignorefile.ReadAll(file)
	if err != nil {
		return nil, err
	}
	all, err := fsutil.NewFS(folder)
	if err != nil {
		return nil, err
	}
	some, err := fsutil.NewFilterFS(all, &fsutil.FilterOpt{ExcludePatterns: ignored})
	if err != nil {
		return nil, err
	}
	files := []string{}
	err = some.Walk(context.Background(), "", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, path)
		}
		return err
	})
	return files, err
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, "dockerfile: "+message)
	os.Exit(1)
}
