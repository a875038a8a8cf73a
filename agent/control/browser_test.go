package control_test

import (
	"bytes"
	"compress/gzip"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"arch.network/agent"
	"arch.network/agent/control"
	"arch.network/agent/control/dashboard"
	"arch.network/agent/nodetest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

//go:embed testdata/axe-4.14.1.min.js.gz
var axe []byte

// evil is what strangers try: it must be text wherever it is shown.
const evil = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>` + "\x1b]0;owned\x07\u202e"

// show starts a server with a dashboard on TCP, and jobs in many states.
func show(t *testing.T) (url string, m *nodetest.Memory, jobs map[string]agent.Job) {
	t.Helper()
	log := newTestLog(t)
	m = memory(t, nodetest.Options{
		Recorder: log, Slots: 2,
		Judge: func(j *manifest.Job) []agent.Reason {
			if strings.HasPrefix(j.Metadata.Name, "mail") {
				return []agent.Reason{{Field: "spec.capabilities.net[0]", Msg: "egress:25 is not allowed " + evil, Cure: "add egress:25 to capabilities.allow in the policy"}}
			}
			return nil
		},
		Status: agent.Status{
			Node: "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp", Version: "1.0", Started: time.Now().Add(-26 * time.Hour),
			Capacity: agent.Resources{CPU: 4000, Memory: 16 << 30}, Committed: agent.Resources{CPU: 1500, Memory: 3 << 30},
			Policy:   agent.PolicyStatus{Name: "house-rules", Version: 7, ID: digest.Of([]byte("p")), Expires: time.Now().Add(20 * 24 * time.Hour)},
			Ledger:   agent.LedgerStatus{Origin: "node.test/log", Size: 42},
			Problems: []agent.Problem{{Code: "policy-expires", Text: "The policy expires in 20 days.", Cure: "arch policy propose"}},
		},
	})
	jobs = map[string]agent.Job{}
	s := nodetest.Subject{Node: m}
	submit := func(name string, does nodetest.Does, state agent.State) {
		job, err := m.Submit(t.Context(), nodetest.Sign(t, nodetest.Document(t, name, does)), "uid:1000")
		if err != nil {
			t.Fatal(err)
		}
		jobs[name] = s.Until(t, job.ID, func(j agent.Job) bool { return j.State == state })
	}
	submit("embed-wikipedia", nodetest.Does{Print: "loading the model\nembedding 1000 articles\n" + evil + "\ndone\n"}, agent.Archived)
	submit("mail-merge", nodetest.Does{}, agent.Refused)
	submit("flaky-tests", nodetest.Does{Exit: 3, Print: "FAIL\n"}, agent.Failed)
	submit("odd-one", nodetest.Does{Odd: true, Print: "all is well\n"}, agent.Quarantined)
	submit("render-frames", nodetest.Does{Hang: true, Print: "frame 1\n"}, agent.Running)
	submit("train-small", nodetest.Does{Hang: true, Print: "epoch 1\n"}, agent.Running)
	submit("waits-its-turn", nodetest.Does{}, agent.Verified)
	policy := nodetest.Sign(t, nodetest.Document(t, "stands-for-a-policy", nodetest.Does{}))
	show := func(ctx) ([]byte, error) { return policy, nil }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, control.Options{
		Node: m, Reading: true, Ledger: log.view(t), Tiles: log, Policy: show,
		Dashboard: dashboard.New(dashboard.Options{Node: m, Ledger: log.view(t), Policy: show}),
	}, l)
	return "http://" + l.Addr().String(), m, jobs
}

// browser starts Chromium. Its context ends with the test.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skipf("cannot run here: there is no chromium: %v", err)
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.WindowSize(1280, 800), chromedp.UserDataDir(t.TempDir()))
	ctx, stop := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// until waits until an expression is true in the page.
func until(t *testing.T, ctx context.Context, expression string) {
	t.Helper()
	page := ctx
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if err != nil {
			text, _ := chromedp.Run(page, chromedp.Evaluate[string]("document.body.innerText"))
			t.Fatalf("%s never became true: %v\n%s", expression, err, text)
		}
		if ok {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// TestDashboard looks at every page as a person would: nothing is broken, nothing comes from elsewhere, what strangers wrote is text, and
// axe finds nothing that keeps anybody out.
func TestDashboard(t *testing.T) {
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skipf("cannot run here: there is no chromium: %v", err)
	}
	url, m, jobs := show(t)
	ctx := browser(t)
	console, err := gunzip(axe)
	if err != nil {
		t.Fatal(err)
	}
	axeScript := string(console)
	messages := chromedp.Console(ctx)
	for _, page := range []struct {
		name, path, want string
	}{
		{"node", "/", "document.querySelectorAll('.plots canvas').length === 3 && document.getElementById('pulse').textContent === 'live'"},
		{"jobs", "/jobs", "document.querySelectorAll('tbody tr').length === 7"},
		{"jobs-failed", "/jobs?state=failed", "document.querySelectorAll('tbody tr').length === 1"},
		{"job", "/jobs/" + jobs["embed-wikipedia"].ID.String(), "document.getElementById('log').textContent.endsWith('done\\n')"},
		{"job-running", "/jobs/render-frames", "document.getElementById('log').textContent.startsWith('frame 1')"},
		{"job-refused", "/jobs/mail-merge", "document.body.innerText.includes('To change it: add egress:25')"},
		{"quarantine", "/quarantine", "document.body.innerText.includes('arch quarantine release')"},
		{"ledger", "/ledger", "document.querySelectorAll('tbody tr').length > 10"},
		{"entry", "/ledger/3", "document.querySelector('.proof .good').textContent === 'in the ledger'"},
		{"policy", "/policy", "document.body.innerText.includes('stands-for-a-policy')"},
		{"life", "/life", "document.querySelectorAll('svg .step').length === " + fmt.Sprint(len(agent.Life())-1)},
		{"missing", "/nowhere", "document.body.innerText.includes('no such page')"},
	} {
		t.Run(page.name, func(t *testing.T) {
			err := chromedp.Do(ctx, chromedp.Navigate(url+page.path))
			if err != nil {
				t.Fatal(err)
			}
			until(t, ctx, page.want)
			for _, theme := range []string{"light", "dark"} {
				media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}}
				if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, media); err != nil {
					t.Fatal(err)
				}
				picture(t, ctx, page.name+"-"+theme)
				inaccessible(t, ctx, axeScript, theme == "dark")
			}
			if foreign, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.title.includes('owned') || document.querySelector('main img, main script') !== null ||
				performance.getEntriesByType('resource').some(e => !e.name.startsWith(location.origin))`)); err != nil || foreign {
				t.Errorf("something of a stranger's was run or loaded (%v)", err)
			}
			if control, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`/[\u0000-\u0008\u001b\u007f-\u009f\u202e]/.test(document.body.textContent)`)); err != nil || control {
				t.Errorf("a control character is in the page (%v)", err)
			}
		})
	}
	t.Run("it stays fresh", func(t *testing.T) {
		if err := chromedp.Do(ctx, chromedp.Navigate(url+"/jobs/render-frames")); err != nil {
			t.Fatal(err)
		}
		until(t, ctx, "document.getElementById('pulse').textContent === 'live'")
		if err := m.Act(t.Context(), agent.Act{Verb: agent.VerbCancel, Job: jobs["render-frames"].ID, By: "uid:0", Reason: "the frames are not needed"}); err != nil {
			t.Fatal(err)
		}
		until(t, ctx, "document.querySelector('h1 .badge').textContent === 'cancelled' && document.body.innerText.includes('the frames are not needed') && document.getElementById('log').textContent.startsWith('frame 1')")
	})
	t.Run("a script that comes late", func(t *testing.T) {
		target, err := neturl.Parse(url)
		if err != nil {
			t.Fatal(err)
		}
		forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0)}
		slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/static/hx-sse") {
				time.Sleep(time.Second) // the others are there, and have run
			}
			forward.ServeHTTP(w, r)
		}))
		t.Cleanup(func() {
			slow.CloseClientConnections()
			slow.Close()
		})
		if err := chromedp.Do(ctx, chromedp.Navigate(slow.URL+"/")); err != nil {
			t.Fatal(err)
		}
		until(t, ctx, "document.getElementById('pulse').textContent === 'live'")
		if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a narrow screen", func(t *testing.T) {
		if err := chromedp.Do(ctx, chromedp.EmulateViewport(390, 800), chromedp.Navigate(url+"/")); err != nil {
			t.Fatal(err)
		}
		until(t, ctx, "document.querySelectorAll('.plots canvas').length === 3")
		if wide, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("document.documentElement.scrollWidth > 390")); err != nil || wide {
			t.Errorf("the page is wider than the screen (%v)", err)
		}
		picture(t, ctx, "narrow")
	})
	chromedp.Do(ctx, chromedp.Navigate("about:blank"))
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("console.log('the end') || true")); err != nil {
		t.Fatal(err)
	}
	for m, err := range messages {
		if err != nil {
			t.Fatal(err)
		}
		if m.Text == "the end" {
			break
		}
		if !strings.Contains(m.URL, "/nowhere") { // whose status is 404, as it must be
			t.Errorf("the console says: %s %s", m, m.URL)
		}
	}
}

func gunzip(data []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// picture keeps what a person would see; go test -artifacts leaves it on disk.
func picture(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(t.ArtifactDir(), name+".png"), png, 0o644)
	}
	if err != nil {
		t.Error(err)
	}
}

// inaccessible reports what axe finds. Where only the colors have changed, it looks only at them.
func inaccessible(t *testing.T, ctx context.Context, script string, colors bool) {
	t.Helper()
	options := "{resultTypes: ['violations']}"
	if colors {
		script, options = "axe", "{resultTypes: ['violations'], runOnly: {type: 'rule', values: ['color-contrast']}}"
	}
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](script+"; true")); err != nil {
		t.Fatal(err)
	}
	found, err := chromedp.Run(ctx, chromedp.Evaluate[string](
		`axe.run(document, `+options+`).then(r => JSON.stringify(r.violations.map(v => ({id: v.id, help: v.help, where: v.nodes.map(n => n.html.slice(0, 200))}))))`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	var violations []json.RawMessage
	if err := json.Unmarshal([]byte(found), &violations); err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Errorf("axe: %s", v)
	}
}

// TestPages holds what needs no browser: the policy that browsers keep to, and the size of it all.
func TestPages(t *testing.T) {
	url, _, jobs := show(t)
	total := 0
	for _, path := range []string{"/", "/jobs", "/jobs/" + jobs["odd-one"].ID.String(), "/ledger", "/ledger/0", "/policy", "/quarantine", "/life"} {
		res, body := fetch(t, http.DefaultClient, "GET", url+path, "", "", nil)
		csp := res.Header.Get("Content-Security-Policy")
		if res.StatusCode != 200 || !strings.HasPrefix(csp, "default-src 'none'; script-src 'nonce-") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: status %d, policy %q", path, res.StatusCode, csp)
		}
		if text := string(body); strings.Contains(text, " style=") || strings.Contains(text, "onclick") || strings.Contains(text, "<img src=x") || strings.ContainsAny(text, "\x1b\x07\u202e") {
			t.Errorf("%s holds what it must not", path)
		}
	}
	for _, name := range []string{"htmx-4.0.1.min.js", "hx-sse-4.0.1.min.js", "uplot-1.6.32.min.js", "uplot-1.6.32.min.css", "app.js", "style.css", "icon.svg"} {
		res, body := fetch(t, http.DefaultClient, "GET", url+"/static/"+name, "", "", nil)
		if res.StatusCode != 200 {
			t.Errorf("%s: status %d", name, res.StatusCode)
		}
		var b bytes.Buffer
		z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
		z.Write(body)
		z.Close()
		total += b.Len()
	}
	if total > 60<<10 {
		t.Errorf("%d bytes of scripts and styles, compressed; want at most 60 KiB", total)
	}
	t.Logf("%d bytes of scripts and styles, compressed", total)
	for path, status := range map[string]int{
		"/jobs/nobody": 404, "/jobs?state=happy": 400, "/ledger/x": 400, "/ledger/99999": 404, "/ledger?before=x": 400, "/static/": 200, "/static/../page/node.html": 404, "/jobs?before=x": 400,
	} {
		if res, _ := fetch(t, http.DefaultClient, "GET", url+path, "", "", nil); res.StatusCode != status {
			t.Errorf("%s: status %d, want %d", path, res.StatusCode, status)
		}
	}
}
