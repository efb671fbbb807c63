// tlog-check reads a log of Palisade and its proofs with what Go has for transparency logs, and nothing of Palisade's.
//
//	tlog-check log EPOCH -key VKEY            every entry, tile and checkpoint of an epoch is what was signed
//	tlog-check proof FILE -key VKEY           a file proves that an entry is in a log
//	tlog-check prove EPOCH INDEX -key VKEY    prints such a file, made from the tiles
//
// EPOCH is the directory of one epoch. Exit codes: 0 it is so; 1 it is not, and one line says why; 2 wrong command line.
package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const usage = "usage: tlog-check (log EPOCH | proof FILE | prove EPOCH INDEX) -key VKEY"

func main() {
	// How many words each command takes.
	takes := map[string]int{"log": 1, "proof": 1, "prove": 2}
	flags := flag.NewFlagSet("tlog-check", flag.ExitOnError)
	flags.Usage = func() { fmt.Fprintln(os.Stderr, usage) }
	vkey := flags.String("key", "", "the verifier key that is trusted")
	wrong := func() {
		flags.Usage()
		os.Exit(2)
	}
	if len(os.Args) < 2 || takes[os.Args[1]] == 0 || len(os.Args) < 2+takes[os.Args[1]] {
		wrong()
	}
	command := os.Args[1]
	words, options := os.Args[2:2+takes[command]], os.Args[2+takes[command]:]
	if err := flags.Parse(options); err != nil || *vkey == "" || flags.NArg() > 0 {
		wrong()
	}
	told, err := run(command, words, *vkey)
	if err != nil {
		fmt.Fprintf(os.Stderr, "tlog-check: %s: %v\n", words[0], err)
		os.Exit(1)
	}
	fmt.Print(told)
}

func run(command string, words []string, vkey string) (string, error) {
	key, err := parseKey(vkey)
	if err != nil {
		return "", fmt.Errorf("-key: %w", err)
	}
	switch command {
	case "log":
		return checkLog(words[0], key)
	case "proof":
		return checkProof(words[0], key)
	default:
		return prove(words[0], words[1], key)
	}
}

// ---- keys and checkpoints

// A trusted key is the one of a log, all epochs of which sign with it, each under its own origin as the key's name.
type trusted struct {
	name string
	key  ed25519.PublicKey
}

func parseKey(vkey string) (*trusted, error) {
	// It looks whether the id is that of the name and key.
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.SplitN(vkey, "+", 3)[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize {
		return nil, errors.New("it is no Ed25519 key")
	}
	return &trusted{verifier.Name(), key[1:]}, nil
}

// The log that an epoch with this origin belongs to; "" if it is none of an epoch.
func logOf(origin string) string {
	at := strings.LastIndex(origin, "/")
	if number, err := strconv.ParseUint(origin[at+1:], 10, 64); at < 0 || err != nil || number == 0 || fmt.Sprint(number) != origin[at+1:] {
		return ""
	}
	return origin[:at]
}

// The policy by which a checkpoint with this origin is believed.
func (k *trusted) policy(origin string) (torchwood.Policy, error) {
	if log := logOf(origin); log == "" || (log != k.name && log != logOf(k.name)) {
		return nil, fmt.Errorf("its origin %q is none of an epoch of %s", origin, k.name)
	}
	vkey, err := note.NewEd25519VerifierKey(origin, k.key)
	if err != nil {
		return nil, err
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	return torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(origin), torchwood.SingleVerifierPolicy(verifier)), nil
}

func (k *trusted) open(text string) (*torchwood.Checkpoint, error) {
	origin, _, _ := strings.Cut(text, "\n")
	policy, err := k.policy(origin)
	if err != nil {
		return nil, err
	}
	checkpoint, opened, err := torchwood.VerifyCheckpoint([]byte(text), policy)
	if err != nil {
		return nil, err
	}
	// Go reads base64 also if bits are set in it that mean nothing.
	if checkpoint.String() != opened.Text {
		return nil, errors.New("it is not written as a checkpoint is")
	}
	for _, signature := range opened.Sigs {
		if _, err := base64.StdEncoding.Strict().DecodeString(signature.Base64); err != nil {
			return nil, errors.New("its signature is not written as one is")
		}
	}
	return &checkpoint, nil
}

// The notes in a file, one behind the other.
func notes(file string) ([]string, error) {
	var notes []string
	for file != "" {
		_, signatures, found := strings.Cut(file, "\n\n")
		end := len(file) - len(signatures)
		for found && strings.HasPrefix(signatures, "\u2014 ") {
			var line string
			if line, signatures, found = strings.Cut(signatures, "\n"); found {
				end += len(line) + 1
			}
		}
		if !found {
			return nil, fmt.Errorf("what follows on note %d is none", len(notes))
		}
		notes = append(notes, file[:end])
		file = file[end:]
	}
	return notes, nil
}

// All checkpoints of an epoch that were ever signed; the last of them has to be the one that is named as that.
func (k *trusted) checkpoints(dir string) ([]*torchwood.Checkpoint, error) {
	named, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return nil, err
	}
	file, err := os.ReadFile(filepath.Join(dir, "checkpoints"))
	if err != nil {
		return nil, err
	}
	texts, err := notes(string(file))
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	if len(texts) == 0 || texts[len(texts)-1] != string(named) {
		return nil, errors.New("checkpoint: it is not the last of the checkpoints that were signed")
	}
	var checkpoints []*torchwood.Checkpoint
	for i, text := range texts {
		checkpoint, err := k.open(text)
		if err != nil {
			return nil, fmt.Errorf("checkpoints: number %d: %w", i, err)
		}
		if i > 0 && (checkpoint.Origin != checkpoints[0].Origin || checkpoint.N <= checkpoints[i-1].N) {
			return nil, fmt.Errorf("checkpoints: number %d does not go on from the one before it", i)
		}
		checkpoints = append(checkpoints, checkpoint)
	}
	return checkpoints, nil
}

// ---- an epoch

// An epoch is read up to one of its checkpoints.
type epoch struct {
	dir    string
	tree   tlog.Tree
	files  *torchwood.TileFS
	hashes tlog.HashReader // those of the tiles, each compared with the root
}

func openEpoch(dir string, tree tlog.Tree) (*epoch, error) {
	files, err := torchwood.NewTileFS(os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	return &epoch{dir, tree, files, torchwood.TileHashReaderWithContext(context.Background(), tree, files)}, nil
}

// The entries, taken out of their bundles; and the stored hashes that they give, as the interior of the tree.
func (e *epoch) entries() ([][]byte, tlog.HashReaderFunc, error) {
	var entries [][]byte
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			if index >= int64(len(stored)) {
				return nil, fmt.Errorf("there is no hash %d", index)
			}
			hashes[i] = stored[index]
		}
		return hashes, nil
	})
	for _, tile := range tlog.NewTiles(torchwood.TileHeight, 0, e.tree.N) {
		if tile.L != 0 {
			continue
		}
		tile.L = -1
		path := torchwood.TilePath(tile)
		rest, err := os.ReadFile(filepath.Join(e.dir, path))
		if err != nil {
			return nil, nil, err
		}
		for range tile.W {
			var entry []byte
			if entry, rest, err = torchwood.ReadTileEntry(rest); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", path, err)
			}
			hashes, err := tlog.StoredHashesForRecordHash(int64(len(entries)), tlog.RecordHash(entry), reader)
			if err != nil {
				return nil, nil, err
			}
			entries, stored = append(entries, entry), append(stored, hashes...)
		}
		if len(rest) > 0 {
			return nil, nil, fmt.Errorf("%s: it has more than %d entries", path, tile.W)
		}
	}
	return entries, reader, nil
}

func checkLog(dir string, key *trusted) (string, error) {
	checkpoints, err := key.checkpoints(dir)
	if err != nil {
		return "", err
	}
	last := checkpoints[len(checkpoints)-1]
	epoch, err := openEpoch(dir, last.Tree)
	if err != nil {
		return "", err
	}
	entries, computed, err := epoch.entries()
	if err != nil {
		return "", err
	}
	for _, checkpoint := range checkpoints {
		root, err := tlog.TreeHash(checkpoint.N, computed)
		if err != nil {
			return "", err
		}
		if root != checkpoint.Hash {
			return "", fmt.Errorf("the first %d entries have the root %v, the checkpoint of that size has %v", checkpoint.N, root, checkpoint.Hash)
		}
		// After the root: these are compared with what was computed.
		if err := epoch.checkTiles(checkpoint.N, entries, computed); err != nil {
			return "", fmt.Errorf("checkpoint of %d entries: %w", checkpoint.N, err)
		}
	}
	if err := epoch.checkConsistency(checkpoints); err != nil {
		return "", err
	}
	if err := epoch.checkClient(entries); err != nil {
		return "", err
	}
	return fmt.Sprintf("verified %s: %d entries, %d checkpoints, root %x\n", last.Origin, last.N, len(checkpoints), last.Hash[:]), nil
}

// The files that a tree of this size has are there, and are what the entries give. Of an earlier tree than the last, a partial
// tile may be gone once there is the full one.
func (e *epoch) checkTiles(size int64, entries [][]byte, computed tlog.HashReader) error {
	for _, tile := range tlog.NewTiles(torchwood.TileHeight, 0, size) {
		hashes, err := tlog.ReadTileData(tile, computed)
		if err != nil {
			return err
		}
		if err := e.checkFile(tile, hashes); err != nil {
			return err
		}
		if tile.L != 0 {
			continue
		}
		var bundle []byte
		first := tile.N * torchwood.TileWidth
		for _, entry := range entries[first : first+int64(tile.W)] {
			if bundle, err = torchwood.AppendTileEntry(bundle, entry); err != nil {
				return err
			}
		}
		tile.L = -1
		if err := e.checkFile(tile, bundle); err != nil {
			return err
		}
	}
	return nil
}

func (e *epoch) checkFile(tile tlog.Tile, wanted []byte) error {
	path := torchwood.TilePath(tile)
	file, err := os.ReadFile(filepath.Join(e.dir, path))
	full := tile
	full.W = torchwood.TileWidth
	if errors.Is(err, fs.ErrNotExist) && full != tile && e.has(full) {
		return nil // it is compared itself
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(file, wanted) {
		return fmt.Errorf("%s: it is not what the entries give", path)
	}
	return nil
}

// Whether the tree of the last checkpoint has this full tile.
func (e *epoch) has(tile tlog.Tile) bool {
	return (tile.N+1)*torchwood.TileWidth <= e.tree.N>>(torchwood.TileHeight*max(tile.L, 0))
}

// Each checkpoint is of a beginning of the next, and of the last.
func (e *epoch) checkConsistency(checkpoints []*torchwood.Checkpoint) error {
	for i, older := range checkpoints {
		for _, newer := range []tlog.Tree{checkpoints[min(i+1, len(checkpoints)-1)].Tree, e.tree} {
			proof, err := tlog.ProveTree(newer.N, older.N, e.hashes)
			if err != nil {
				return err
			}
			if err := tlog.CheckTree(proof, newer.N, newer.Hash, older.N, older.Hash); err != nil {
				return fmt.Errorf("from %d to %d entries: %w", older.N, newer.N, err)
			}
		}
	}
	return nil
}

// A client of such logs reads the same entries, each compared with the tree.
func (e *epoch) checkClient(entries [][]byte) error {
	client, err := torchwood.NewClient(e.files)
	if err != nil {
		return err
	}
	read := 0
	for index, entry := range client.AllEntries(context.Background(), e.tree, 0) {
		if index != int64(read) || !bytes.Equal(entry, entries[read]) {
			return fmt.Errorf("a client reads another entry %d", index)
		}
		read++
	}
	if err := client.Err(); err != nil {
		return err
	}
	if read != len(entries) {
		return fmt.Errorf("a client reads %d entries instead of %d", read, len(entries))
	}
	return nil
}

// ---- proofs

func checkProof(path string, key *trusted) (string, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	proof, err := parseProof(string(file))
	if err != nil {
		return "", err
	}
	checkpoint, err := key.open(proof.checkpoint)
	if err != nil {
		return "", fmt.Errorf("its checkpoint: %w", err)
	}
	leaf := tlog.RecordHash(proof.entry)
	own := tlog.CheckRecord(proof.hashes, checkpoint.N, checkpoint.Hash, proof.index, leaf)
	policy, err := key.policy(checkpoint.Origin)
	if err != nil {
		return "", err
	}
	extra, err := torchwood.ProofExtraData(file)
	if err != nil {
		return "", err
	}
	theirs := torchwood.VerifyProof(policy, tlog.RecordHash(extra), file)
	if err := errors.Join(own, theirs); err != nil {
		return "", errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return fmt.Sprintf("proved entry %d of %s, in its checkpoint of %d entries\n", proof.index, checkpoint.Origin, checkpoint.N), nil
}

type proof struct {
	entry      []byte
	index      int64
	hashes     tlog.RecordProof
	checkpoint string
}

// Reads a file by the letter of c2sp.org/tlog-proof, with the entry as its extra data.
func parseProof(file string) (*proof, error) {
	head, checkpoint, found := strings.Cut(file, "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return nil, errors.New("it is no proof")
	}
	extra, hasExtra := strings.CutPrefix(lines[1], "extra ")
	number, hasIndex := strings.CutPrefix(lines[2], "index ")
	if !hasExtra || !hasIndex {
		return nil, errors.New("it has no entry, or no index")
	}
	entry, err := base64.StdEncoding.Strict().DecodeString(extra)
	if err != nil {
		return nil, fmt.Errorf("its entry: %w", err)
	}
	index, err := strconv.ParseInt(number, 10, 64)
	if err != nil || index < 0 || strconv.FormatInt(index, 10) != number {
		return nil, errors.New("its index is not written as one is")
	}
	read := &proof{entry: entry, index: index, checkpoint: checkpoint}
	for _, line := range lines[3:] {
		hash, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(hash) != tlog.HashSize {
			return nil, errors.New("one of its hashes is none")
		}
		read.hashes = append(read.hashes, tlog.Hash(hash))
	}
	return read, nil
}

func prove(dir, number string, key *trusted) (string, error) {
	index, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return "", err
	}
	named, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return "", err
	}
	checkpoint, err := key.open(string(named))
	if err != nil {
		return "", fmt.Errorf("its checkpoint: %w", err)
	}
	epoch, err := openEpoch(dir, checkpoint.Tree)
	if err != nil {
		return "", err
	}
	client, err := torchwood.NewClient(epoch.files)
	if err != nil {
		return "", err
	}
	entry, theirs, err := client.Entry(context.Background(), checkpoint.Tree, index)
	if err != nil {
		return "", err
	}
	own, err := tlog.ProveRecord(checkpoint.N, index, epoch.hashes)
	if err != nil {
		return "", err
	}
	if !slices.Equal(own, theirs) {
		return "", errors.New("a client has another proof")
	}
	return string(torchwood.FormatProofWithExtraData(index, entry, own, named)), nil
}
