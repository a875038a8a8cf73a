;;; arch, arch-node-agent and arch-runnerd for Guix, byte for byte what a plain
;;;
;;;   CGO_ENABLED=0 GOAMD64=v1 GOFLAGS='-trimpath -buildvcs=false' go build -ldflags='-s -w -buildid=' ./cmd/...
;;;
;;; makes with the pinned toolchain, and what ../../nix/package.nix makes: one digest.  That is why this does not use
;;; 'go-build-system', which builds without modules, by a Go with patches in its standard library; and Guix 1.5.0 has no
;;; Go as new as go.mod asks.
;;;
;;; The toolchain and the dependencies are pinned in ../../nix/pins.json, for Nix and for Guix.

(define-module (arch packages)
  #:use-module (gnu packages base)
  #:use-module (gnu packages bash)
  #:use-module (gnu packages compression)
  #:use-module (gnu packages nss)
  #:use-module (guix base64)
  #:use-module (guix build-system trivial)
  #:use-module (guix download)
  #:use-module (guix gexp)
  #:use-module ((guix licenses) #:prefix license:)
  #:use-module (guix monads)
  #:use-module (guix packages)
  #:use-module (guix store)
  #:use-module (ice-9 match)
  #:use-module (ice-9 regex)
  #:use-module (ice-9 textual-ports)
  #:export (go-toolchain
            go-modules
            make-arch))

;; Where this repository lies: a checkout, or the copy that a channel is made from.
(define %root
  (let ((here (canonicalize-path (search-path %load-path "arch/packages.scm"))))
    (dirname (dirname (dirname here)))))

(define (in-root file)
  (string-append %root "/" file))

;; What the scripts find that Nix runs, too.
(define (search-path-of . more)
  #~(string-join (list #$@(map (lambda (package) (file-append package "/bin"))
                               (append more (list bash-minimal coreutils findutils sed))))
                 ":"))


;;;
;;; Pins.
;;;

(define (pin key)
  "Return the one text that nix/pins.json has under KEY."
  (let ((json (call-with-input-file (in-root "nix/pins.json") get-string-all)))
    (match (list-matches (string-append "\"" (regexp-quote key) "\": *\"([^\"]*)\"") json)
      ((one) (match:substring one 1))
      (_ (error "nix/pins.json: not there exactly once:" key)))))

(define (pinned-hash key)
  "Return the SHA-256 hash that nix/pins.json has under KEY."
  (match (string-split (pin key) #\-)
    (("sha256" base64) (base64-decode base64))
    (_ (error "nix/pins.json: no SHA-256 hash:" key))))

;; The name that Go has for a system, and the hash of the zip file.  Its content has the hash that nix/pins.json says.
(define %platforms
  `(("x86_64-linux" "linux-amd64" ,(base32 "1rqxndb5ikb1xyhfhc0a26rysa4ivmyy8r0k1bmx726cgnzv3hih"))
    ("aarch64-linux" "linux-arm64" ,(base32 "16cdcp6qfr7gycdqvq7ykwgknnplincy4c7nd1v7db5khxknpcq2"))))

(define (toolchain-zip version)
  "Return the origin of Go for the current system, which needs no other one to be built."
  (match (assoc (%current-system) %platforms)
    ((_ platform hash)
     (origin
       (method url-fetch)
       (uri (string-append "https://go.dev/dl/mod/golang.org/toolchain/@v/v0.0.1-go" version "." platform ".zip"))
       (file-name (string-append "go-" version "." platform ".zip"))
       (sha256 hash)))
    (_ #f)))

(define go-toolchain
  (let ((go-version (pin "version")))
    (hidden-package
     (package
       (name "go-toolchain")
       (version go-version)
       (source (toolchain-zip version))
       (build-system trivial-build-system)
       (arguments
        (list #:modules '((guix build utils))
              #:builder
              #~(begin
                  (use-modules (guix build utils))
                  (setenv "PATH" #+(search-path-of unzip))
                  (invoke "sh" #$(local-file (in-root "nix/toolchain.sh")) #$source #$output))))
       (supported-systems (map car %platforms))
       (home-page "https://go.dev")
       (synopsis "Go as its authors publish it")
       (description "This is the Go toolchain as its authors publish it, which anybody can
reproduce: what it compiles is what it compiles elsewhere.")
       (license license:bsd-3)))))

(define* (go-modules-fetch files hash-algo hash #:optional (name "go-modules")
                           #:key (system (%current-system)) (guile (default-guile)))
  "Download what FILES, a go.mod and its go.sum, pin."
  (mlet %store-monad ((guile (package->derivation guile system)))
    (match files
      ((go.mod go.sum)
       (gexp->derivation name
                         (with-imported-modules '((guix build utils))
                           #~(begin
                               (use-modules (guix build utils))
                               (copy-file #+go.mod "go.mod")
                               (copy-file #+go.sum "go.sum")
                               (setenv "PATH" #+(search-path-of go-toolchain))
                               (setenv "HOME" (getcwd))
                               (setenv "SSL_CERT_DIR" #+(file-append nss-certs "/etc/ssl/certs"))
                               (invoke "sh" #+(local-file (in-root "nix/modules.sh")) #$output)))
                         #:system system
                         #:guile-for-build guile
                         #:hash-algo hash-algo
                         #:hash hash
                         #:recursive? #t
                         #:graft? #f
                         #:leaked-env-vars '("http_proxy" "https_proxy" "no_proxy" "GOPROXY")
                         #:local-build? #t)))))

(define go-modules
  (origin
    (method go-modules-fetch)
    (uri (list (local-file (in-root "go.mod")) (local-file (in-root "go.sum"))))
    (file-name "arch-modules")
    (sha256 (pinned-hash "modules"))))


;;;
;;; The package.
;;;

(define (compiled? file stat)
  "Return true for what the compiler reads, as nix/package.nix and tests/examples/arch-itself have it."
  (let* ((relative (string-drop file (1+ (string-length %root))))
         (top (car (string-split relative #\/)))
         (base (basename file)))
    (if (eq? 'directory (stat:type stat))
        (and (member top '("agent" "attest" "builder" "cmd" "runner"))
             (not (string=? base "testdata")))
        (if (string=? relative top)
            (member top '("go.mod" "go.sum"))
            (and (not (string-suffix? "_test.go" base))
                 (or (not (string-suffix? ".md" base))
                     (string-prefix? "attest/predicates/" relative))))))) ;embedded

(define* (make-arch #:key (go go-toolchain) (modules go-modules))
  "Return the package of arch that is built by GO from MODULES, the module cache that go.mod pins."
  (package
    (name "arch")
    (version "0.1.0")
    (source (local-file %root "arch-source" #:recursive? #t #:select? compiled?))
    (build-system trivial-build-system)
    (arguments
     (list #:modules '((guix build utils))
           #:allowed-references '()     ;the programs are static
           #:builder
           #~(begin
               (use-modules (guix build utils) (ice-9 popen) (ice-9 textual-ports))
               (define (program name)
                 (string-append #$output "/bin/" name))
               (define (keep file name . arguments)
                 ;; Keep in FILE below share what the program NAME prints.
                 (let* ((file (string-append #$output "/share/" file))
                        (pipe (apply open-pipe* OPEN_READ (program name) arguments))
                        (text (get-string-all pipe)))
                   (unless (zero? (close-pipe pipe))
                     (error "it failed:" name arguments))
                   (mkdir-p (dirname file))
                   (call-with-output-file file
                     (lambda (port) (put-string port text)))))
               (setlocale LC_ALL "C.UTF-8")
               (for-each (lambda (variable) (apply setenv variable))
                         '(("CGO_ENABLED" "0")
                           ("GOAMD64" "v1")
                           ("GOENV" "off")
                           ("GOFLAGS" "-trimpath -buildvcs=false")
                           ("GOMODCACHE" #+modules)
                           ("GOPROXY" "off")
                           ("GOSUMDB" "off")
                           ("GOTELEMETRY" "off")
                           ("GOTOOLCHAIN" "local")))
               (setenv "HOME" (getcwd))
               (setenv "GOCACHE" (string-append (getcwd) "/cache"))
               (mkdir-p (string-append #$output "/bin"))
               (with-directory-excursion #+source
                 (invoke #+(file-append go "/bin/go") "build" "-ldflags=-s -w -buildid="
                         "-o" (string-append #$output "/bin/") "./cmd/..."))
               (let ((man (string-append #$output "/share/man/man1")))
                 (mkdir-p man)
                 (invoke (program "arch") "--quiet" "man" "--dir" man))
               (keep "man/man8/arch-node-agent.8" "arch-node-agent" "--man")
               (keep "man/man8/arch-runnerd.8" "arch-runnerd" "--man")
               (keep "bash-completion/completions/arch" "arch" "completion" "bash")
               (keep "zsh/site-functions/_arch" "arch" "completion" "zsh")
               (keep "fish/vendor_completions.d/arch.fish" "arch" "completion" "fish")
               (let ((doc (string-append #$output "/share/doc/arch-" #$version)))
                 (mkdir-p doc)
                 (copy-file #+(local-file (in-root "LICENSE")) (string-append doc "/LICENSE"))))))
    (supported-systems (map car %platforms))
    (home-page "https://arch.network")
    (synopsis "Reproducible builds with signed receipts, and confined jobs")
    (description
     "Arch builds artifacts bit for bit from pinned inputs, signs receipts that anybody
can verify and rebuild from, and runs jobs of people who need not be trusted, confined
to what they declare.  It comes with @command{arch}, the node
@command{arch-node-agent} and its broker @command{arch-runnerd}.")
    (license license:asl2.0)))

(define-public arch (make-arch))
