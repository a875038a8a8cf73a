;;; A node of arch as services of Guix System: the agent, which talks to the world and decides, and the broker, which
;;; verifies again and runs.
;;;
;;; They are set up as ../../agent/unit/unit.go has it for systemd, and a test compares the two.  What is different, since
;;; the Shepherd is not systemd: jobs are confined by the broker itself, in namespaces of its own (arch-runnerd --driver
;;; namespace), so it runs as a user of its own instead of as root without capabilities; and there is no limit on the
;;; agent's memory.

(define-module (arch services)
  #:use-module (arch packages)
  #:use-module (gnu build linux-container)
  #:use-module (gnu packages admin)
  #:use-module (gnu packages nss)
  #:use-module (gnu services)
  #:use-module (gnu services configuration)
  #:use-module (gnu services shepherd)
  #:use-module (gnu system accounts)
  #:use-module (gnu system file-systems)
  #:use-module (gnu system shadow)
  #:use-module (guix gexp)
  #:use-module (guix least-authority)
  #:use-module (guix records)
  #:use-module (ice-9 match)
  #:use-module (srfi srfi-1)
  #:export (arch-node-configuration
            arch-node-configuration?
            arch-node-configuration-fields
            arch-node-configuration-package
            arch-node-configuration-user
            arch-node-configuration-policy-file
            arch-node-configuration-trust-file
            arch-node-configuration-key-file
            arch-node-configuration-listen
            arch-node-configuration-read?
            arch-node-configuration-hosts
            arch-node-configuration-ledger-policy-file
            arch-node-configuration-witness-for-file
            arch-node-agent-arguments
            arch-runnerd-arguments
            arch-node-service-type))


;;;
;;; Settings.
;;;

(define (file-name? value)
  "Return true for a clean absolute file name, as unit.Settings.Validate has it."
  (and (string? value)
       (string-prefix? "/" value)
       (not (string=? value "/"))
       (every (lambda (part) (not (member part '("" "." ".."))))
              (cdr (string-split value #\/)))))

(define (file? value)
  (or (file-like? value) (file-name? value)))

(define (file-or-none? value)
  (or (not value) (file? value)))

(define (word? value)
  "Return true for text that no program takes for a flag or for several words."
  (and (string? value)
       (not (string-null? value))
       (not (string-prefix? "-" value))
       (string-every char-set:graphic value)))

(define list-of-words? (list-of word?))

(define-configuration/no-serialization arch-node-configuration
  (package
   (file-like arch)
   "The package that has @command{arch-node-agent} and @command{arch-runnerd}.")
  (user
   (word "archagent")
   "The user and the group that the agent runs as.")
  (policy-file
   (file "/etc/arch/policy.yaml")
   "The policy, signed by the trust root's policy role: a file name, or a file-like object such as
@code{(local-file \"policy.yaml\")}.  A named file may be replaced while the node runs.  It must
belong to root, and be no symbolic link to another directory, which the agent does not see.")
  (trust-file
   (file "/etc/arch/trust.yaml")
   "The trust root, likewise.")
  (key-file
   (file-name "/etc/arch/key")
   "The key of the node, which only root needs to be able to read.  It is copied to where the agent
alone can read it, below @file{/run}.  It is no file-like object: everybody can read the store.")
  (listen
   (list-of-words '())
   "Addresses to answer on over HTTP, such as @code{\"127.0.0.1:7340\"}; none: only on the socket,
@file{/run/arch-node-agent/socket}.")
  (read?
   (boolean #f)
   "Whether everybody may read who can connect.")
  (hosts
   (list-of-words '())
   "Names by which the node is called over HTTP, beside its addresses.")
  (ledger-policy-file
   (file-or-none #f)
   "How others verify the node's ledger (C2SP tlog-policy): the witnesses that it names are asked to cosign it.  @code{#f}:
nobody is asked.")
  (witness-for-file
   (file-or-none #f)
   "The ledgers of others that this node cosigns (C2SP tlog-policy).  @code{#f}: none."))


;;;
;;; What both services share.
;;;

(define %agent-state "/var/lib/arch-node-agent")
(define %agent-run "/run/arch-node-agent")
(define %agent-credentials "/run/arch-node-agent.credentials")
(define %broker-user "archrunner")
(define %broker-state "/var/lib/arch-runnerd")
(define %broker-run "/run/arch-runnerd")
(define %broker-socket (string-append %broker-run "/socket"))

(define (arch-node-agent-arguments config)
  "Return the arguments of arch-node-agent: a list of texts and file-like objects."
  (match-record config <arch-node-configuration>
                (policy-file trust-file listen read? hosts ledger-policy-file witness-for-file)
    `("--policy" ,policy-file
      "--trust" ,trust-file
      "--key" "credential:key"
      "--state" ,%agent-state
      "--driver" "broker"
      ,@(append-map (lambda (address) (list "--listen" address)) listen)
      ,@(append-map (lambda (host) (list "--host" host)) hosts)
      ,@(if read? '("--read") '())
      ,@(if ledger-policy-file (list "--ledger-policy" ledger-policy-file) '())
      ,@(if witness-for-file (list "--witness-for" witness-for-file) '()))))

(define (arch-runnerd-arguments config)
  "Return the arguments of arch-runnerd, likewise."
  (match-record config <arch-node-configuration>
                (policy-file trust-file user)
    (list "--trust" trust-file
          "--policy" policy-file
          "--user" user
          "--driver" "namespace")))

(define (arch-node-accounts config)
  (define (account name comment home)
    (list (user-group (name name) (system? #t))
          (user-account
           (name name)
           (group name)
           (system? #t)
           (comment comment)
           (home-directory home)
           (create-home-directory? #f)
           (shell (file-append shadow "/sbin/nologin")))))

  (append (account (arch-node-configuration-user config) "Agent of arch" %agent-state)
          (account %broker-user "Broker of arch" %broker-state)))

(define (agent-documents config)
  "Return what the agent reads besides its key."
  (match-record config <arch-node-configuration>
                (policy-file trust-file ledger-policy-file witness-for-file)
    (filter identity (list policy-file trust-file ledger-policy-file witness-for-file))))

(define (named-directories config)
  "Return the directories of the documents that CONFIG names, so that a replaced file is seen."
  (delete-duplicates (map dirname (filter string? (agent-documents config)))))

(define (arch-node-activation config)
  "Make the directories that both services write to, and those where they look."
  #~(begin
      (use-modules (guix build utils))
      (define (own directory name mode)
        (mkdir-p/perms directory (getpwnam name) mode))
      (own #$%agent-state #$(arch-node-configuration-user config) #o700)
      (own #$%agent-run #$(arch-node-configuration-user config) #o755)
      (own #$%broker-state #$%broker-user #o755)
      (for-each mkdir-p '#$(named-directories config))))


;;;
;;; The agent.
;;;

(define* (mapping file #:key writable?)
  (file-system-mapping
   (source file)
   (target file)
   (writable? writable?)))

(define (agent-wrapper config)
  "Return the agent's program, which sees its own files, the network, and the broker's socket."
  (match-record config <arch-node-configuration>
                (package user)
    (least-authority-wrapper
     (file-append package "/bin/arch-node-agent")
     #:name "arch-node-agent"
     #:user user
     #:group user
     ;; It knows who connects by the user.  With a namespace of processes the wrapper would fork once more in the
     ;; process that it cloned, where Guile 3.0.11 waits for threads that are not there.
     #:namespaces (fold delq %namespaces '(net user pid))
     #:preserved-environment-variables '("CREDENTIALS_DIRECTORY" "SSL_CERT_DIR")
     #:mappings (cons* (mapping %agent-state #:writable? #t)
                       (mapping %agent-run #:writable? #t)
                       (mapping %agent-credentials)
                       (mapping %broker-run)
                       (mapping "/proc")
                       (mapping nss-certs)
                       (map mapping (append (named-directories config)
                                            (filter file-like? (agent-documents config))))))))

(define (agent-shepherd-service config)
  (match-record config <arch-node-configuration>
                (user key-file)
    (shepherd-service
     (documentation "The agent of an arch node: it admits, schedules and records jobs, and runs none of them itself.")
     (provision '(arch-node-agent))
     (requirement '(user-processes networking arch-runnerd))
     (start
      #~(let ((start (make-forkexec-constructor
                      (list #$(agent-wrapper config) #$@(arch-node-agent-arguments config))
                      #:log-file "/var/log/arch-node-agent.log"
                      #:environment-variables
                      (list (string-append "CREDENTIALS_DIRECTORY=" #$%agent-credentials)
                            (string-append "SSL_CERT_DIR=" #$(file-append nss-certs "/etc/ssl/certs")))
                      ;; The wrapper makes the directories to mount at by this, and the agent's user must get through
                      ;; them; what the agent makes itself is for nobody else in any case.
                      #:file-creation-mask #o022
                      #:resource-limits '((nofile 8192 8192) (core 0 0)))))
          (lambda args
            ;; As systemd's LoadCredential= does: the agent cannot write its key, and nobody else can read it.
            (let ((directory #$%agent-credentials)
                  (owner (getpwnam #$user))
                  (old (umask #o077)))
              (unless (file-exists? directory)
                (mkdir directory))
              (chown directory 0 (passwd:gid owner))
              (chmod directory #o750)
              (copy-file #$key-file (string-append directory "/key"))
              (chown (string-append directory "/key") 0 (passwd:gid owner))
              (chmod (string-append directory "/key") #o440)
              (umask old))
            (apply start args))))
     (stop #~(make-kill-destructor #:grace-period 90)))))


;;;
;;; The broker.
;;;

(define (broker-shepherd-service config)
  "Return the broker's service.  It gets its socket from the Shepherd, as from systemd; it has no rights to give away, and each
job is confined by it to less than what it sees itself."
  (match-record config <arch-node-configuration>
                (package user)
    (shepherd-service
     (documentation "The broker of an arch node: it verifies each job again, and runs it confined.")
     (provision '(arch-runnerd))
     (requirement '(user-processes))
     (start
      #~(lambda args
          (apply (make-systemd-constructor
                  (list #$(file-append package "/bin/arch-runnerd") #$@(arch-runnerd-arguments config))
                  (list (endpoint (make-socket-address AF_UNIX #$%broker-socket)
                                  #:name "broker"
                                  #:socket-owner (passwd:uid (getpwnam #$user))
                                  #:socket-group (group:gid (getgrnam #$user))
                                  #:socket-directory-permissions #o755))
                  #:user #$%broker-user
                  #:group #$%broker-user
                  #:lazy-start? #f
                  #:log-file "/var/log/arch-runnerd.log"
                  #:environment-variables '()
                  #:file-creation-mask #o022
                  #:resource-limits '((nofile 4096 4096) (core 0 0)))
                 args)))
     (stop #~(make-systemd-destructor)))))


(define arch-node-service-type
  (service-type
   (name 'arch-node)
   (description
    "Run a node of arch: @command{arch-node-agent}, which takes signed jobs, and @command{arch-runnerd}, which verifies
and runs them.  Their log files are rotated by @code{log-rotation-service-type}, as are all of the Shepherd's services.")
   (extensions
    (list (service-extension account-service-type arch-node-accounts)
          (service-extension activation-service-type arch-node-activation)
          (service-extension profile-service-type
                             (compose list arch-node-configuration-package))
          (service-extension shepherd-root-service-type
                             (lambda (config)
                               (list (broker-shepherd-service config)
                                     (agent-shepherd-service config))))))
   (default-value (arch-node-configuration))))
