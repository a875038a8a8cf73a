package control_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"arch.network/agent"
	"arch.network/agent/control"
	"arch.network/agent/control/client"
	"arch.network/agent/control/wire"
	"arch.network/agent/nodetest"
)

// serve starts a server on a socket, which ends with the test, and returns a client of it.
func serve(t testing.TB, o control.Options) *client.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, o, l)
	c, err := client.New(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func serveOn(t testing.TB, o control.Options, listeners ...net.Listener) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.New(o).Serve(ctx, listeners...) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// memory starts a node that does what nodetest.Document says.
func memory(t testing.TB, o nodetest.Options) *nodetest.Memory {
	o.Execute = nodetest.Play
	m := nodetest.New(o)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		m.Run(ctx)
		close(done)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return m
}

// A node that is asked through the API is a node like any other.
func TestNode(t *testing.T) {
	nodetest.Test(t, func(t *testing.T) nodetest.Subject {
		return nodetest.Subject{
			Node: serve(t, control.Options{Node: memory(t, nodetest.Options{})}), By: "uid:0",
			Envelope: func(t *testing.T, name string, does nodetest.Does) []byte {
				return nodetest.Sign(t, nodetest.Document(t, name, does))
			},
		}
	})
}

// fullNode is a node whose disk is full.
type fullNode struct{ agent.Node }

func (fullNode) Submit(context.Context, []byte, string) (agent.Job, error) {
	return agent.Job{}, fmt.Errorf("write state: %w", &fs.PathError{Op: "write", Path: "/secret/place", Err: syscall.ENOSPC})
}

// Whoever hands something in to a node without room learns that and what to do, and not where the node keeps things.
func TestFullDisk(t *testing.T) {
	c := serve(t, control.Options{Node: fullNode{memory(t, nodetest.Options{})}})
	_, err := c.Submit(t.Context(), nodetest.Sign(t, nodetest.Document(t, "job", nodetest.Does{})), "uid:0")
	e, ok := errors.AsType[*wire.Error](err)
	if !ok || e.Problem.Code != wire.CodeDisk || e.Problem.Status != http.StatusInsufficientStorage || strings.Contains(fmt.Sprint(e.Problem), "secret") || e.Hint() == "" {
		t.Errorf("got %v", err)
	}
}
