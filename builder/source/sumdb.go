package source

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"

	"arch.network/attest/digest"
)

// defaultSumDB is Go's checksum database with its key: cmd/go/internal/modfetch/key.go.
const defaultSumDB = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

const (
	// sumKind is the kind of the store's records of the database's latest signed tree, and of its answers.
	sumKind = "sumdb-1"
	// maxSumFile bounds an answer; a full tile has 8 KiB.
	maxSumFile = 1 << 20
)

// lookupSum asks the checksum database for a module's hash, and checks the proof that the database's public log holds it:
// go.dev/ref/mod#checksum-database. The latest tree that was seen is remembered, so that a log that forks is caught.
func (f *Fetcher) lookupSum(ctx context.Context, m module.Version) (digest.SHA256, error) {
	client := &sumClient{f: f, ctx: ctx}
	key, address, _ := strings.Cut(f.SumDB, " ")
	if key == "" {
		key = defaultSumDB
	}
	client.key = key
	client.name, _, _ = strings.Cut(key, "+")
	client.address = strings.TrimRight(strings.TrimSpace(address), "/")
	lines, err := sumdb.NewClient(client).Lookup(m.Path, m.Version)
	if err != nil {
		if missing, ok := errors.AsType[*MissingError](client.failed()); ok {
			return digest.SHA256{}, missing
		}
		return digest.SHA256{}, fmt.Errorf("ask the checksum database: %w", errors.Join(err, client.failed()))
	}
	for _, line := range lines {
		if sum, ok := strings.CutPrefix(line, m.Path+" "+m.Version+" "); ok {
			return parseH1(sum)
		}
	}
	return digest.SHA256{}, fmt.Errorf("checksum database %s has no hash of %s", client.name, m)
}

func parseH1(sum string) (digest.SHA256, error) {
	text, ok := strings.CutPrefix(sum, "h1:")
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(raw) != len(digest.SHA256{}) {
		return digest.SHA256{}, fmt.Errorf("hash %.80q is not h1: and 44 characters of base64", sum)
	}
	return digest.SHA256(raw), nil
}

// sumClient gives sumdb.Client the network and the store. The client calls it from several goroutines.
type sumClient struct {
	f       *Fetcher
	ctx     context.Context
	key     string
	name    string
	address string // of the database; empty: each proxy is asked for it, then https://NAME

	mu       sync.Mutex
	err      error  // first failure of reading
	security string // what the client accuses the database of
}

func (c *sumClient) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.security != "" {
		return fmt.Errorf("the database contradicts itself: %.1000q", c.security)
	}
	return c.err
}

// ReadRemote implements sumdb.ClientOps.
func (c *sumClient) ReadRemote(path string) (data []byte, err error) {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil && c.err == nil {
			c.err = err
		}
	}()
	if c.address != "" {
		return c.f.get(c.ctx, c.address+path, maxSumFile)
	}
	err = c.f.askProxies(c.ctx, "checksum database "+c.name, func(base string) error {
		data, err = c.f.get(c.ctx, base+"/sumdb/"+c.name+path, maxSumFile)
		return err
	})
	if err != nil && notFound(err) {
		return c.f.get(c.ctx, "https://"+c.name+path, maxSumFile)
	}
	return data, err
}

// ReadConfig implements sumdb.ClientOps. The latest tree starts empty.
func (c *sumClient) ReadConfig(file string) ([]byte, error) {
	if file == "key" {
		return []byte(c.key), nil
	}
	value, _, err := c.f.Store.Recall(sumKind, "config "+file)
	return value, err
}

// WriteConfig implements sumdb.ClientOps. Two processes may interleave; then the older of two trees that were both
// verified is remembered, which costs no more than reading some tiles again.
func (c *sumClient) WriteConfig(file string, old, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := c.ReadConfig(file)
	if err != nil {
		return err
	}
	if string(now) != string(old) {
		return sumdb.ErrWriteConflict
	}
	return c.f.Store.Remember(sumKind, "config "+file, data)
}

// ReadCache implements sumdb.ClientOps.
func (c *sumClient) ReadCache(file string) ([]byte, error) {
	value, ok, err := c.f.Store.Recall(sumKind, "cache "+file)
	if err == nil && !ok {
		err = fs.ErrNotExist
	}
	return value, err
}

// WriteCache implements sumdb.ClientOps. A cache that cannot be written costs time only.
func (c *sumClient) WriteCache(file string, data []byte) {
	_ = c.f.Store.Remember(sumKind, "cache "+file, data)
}

// Log implements sumdb.ClientOps.
func (c *sumClient) Log(msg string) {
	c.f.log(Event{Kind: EventProgress, What: "checksum database " + c.name, Detail: msg})
}

// SecurityError implements sumdb.ClientOps.
func (c *sumClient) SecurityError(msg string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.security = msg
}
