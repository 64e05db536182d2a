{{/* What the words of a JSON schema would not explain.  Each ends with what to do. */}}

{{- define "muster.checkImage" -}}
{{- $image := .Values.image -}}
{{- if or .Values.migrate.enabled .Values.pools.import -}}
{{- if not $image.repository -}}
{{- fail "image.repository is empty: name the image with Airflow and Muster that your nodes can pull, such as registry.example.org/muster-airflow" -}}
{{- end -}}
{{- if or (contains "@" $image.repository) (contains ":" (last (splitList "/" $image.repository))) -}}
{{- fail (printf "image.repository %q has a tag or digest in it: say it as image.tag or image.digest" $image.repository) -}}
{{- end -}}
{{- if and (eq $image.tag "latest") (not $image.digest) -}}
{{- fail "image.tag is \"latest\", which is another image tomorrow, and never pulled where there is no registry: give the tag of a version, or image.digest" -}}
{{- end -}}
{{- if and $image.digest (not (regexMatch "^sha256:[0-9a-f]{64}$" $image.digest)) -}}
{{- fail (printf "image.digest is %q: expected sha256: and 64 digits of 0-9a-f, as 'docker image inspect' prints them" $image.digest) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "muster.checkSite" -}}
{{- $site := .Values.site -}}
{{- if and (not $site.toml) (not $site.existingConfigMap) -}}
{{- fail "site.toml is empty: give the site file with --set-file site.toml=SITE.toml, or name a ConfigMap of yours as site.existingConfigMap" -}}
{{- end -}}
{{- if and $site.toml $site.existingConfigMap -}}
{{- fail (printf "site.toml and site.existingConfigMap %q are both given, and one of them would be ignored: leave one out" $site.existingConfigMap) -}}
{{- end -}}
{{- if $site.toml -}}
{{- $file := fromToml $site.toml -}}
{{- if hasKey $file "Error" -}}
{{- fail (printf "site.toml is not a TOML file: %s" $file.Error) -}}
{{- end -}}
{{- range list "pools" "placement" -}}
{{- if not (kindIs "map" (get $file .)) -}}
{{- fail (printf "site.toml has no table [%s]: see docs/sites.md for what a site file holds" .) -}}
{{- end -}}
{{- end -}}
{{- include "muster.checkPoolsOfSite" (dict "root" . "file" $file) -}}
{{- end -}}
{{- end -}}

{{/* Pools of this very cluster run where this chart has made what they need. */}}
{{- define "muster.checkPoolsOfSite" -}}
{{- $wanted := include "muster.jobsNamespace" .root -}}
{{- $tables := default dict .file.kubernetes -}}
{{- range $name, $pool := .file.pools -}}
{{- if and (kindIs "map" $pool) (eq (toString $pool.backend) "kubernetes") -}}
{{- $cluster := dict -}}
{{- if $pool.cluster -}}
{{- $cluster = default dict (get $tables $pool.cluster) -}}
{{- else if eq (len $tables) 1 -}}
{{- $cluster = first (values $tables) -}}
{{- end -}}
{{- $elsewhere := or $cluster.context $cluster.kubeconfig $cluster.connection $pool.context $pool.connection -}}
{{- $namespace := default (default "default" $cluster.namespace) $pool.namespace -}}
{{- if and (not $elsewhere) (ne $namespace $wanted) -}}
{{- fail (printf "site.toml: pool %q runs in the namespace %q of this cluster, where this chart grants nothing: say jobs.namespace=%s, or namespace = %q in the site file" $name $namespace $namespace $wanted) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "muster.checkPods" -}}
{{- $own := list "import-pools.sh" (printf "%s.toml" .Values.site.name) -}}
{{- range $name, $template := .Values.pools.podTemplates -}}
{{- if or (has $name $own) (not (regexMatch "^[A-Za-z0-9][A-Za-z0-9_.-]*\\.ya?ml$" $name)) -}}
{{- fail (printf "pools.podTemplates has a file %q: expected a name that ends with .yaml, without folders" $name) -}}
{{- end -}}
{{- $read := fromYaml $template -}}
{{- if or (hasKey $read "Error") (not $read) -}}
{{- fail (printf "pools.podTemplates.%s is not a YAML mapping: %s" $name (default "it is empty" $read.Error)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "muster.checkJobs" -}}
{{- $namespace := include "muster.jobsNamespace" . -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$" $namespace) -}}
{{- fail (printf "jobs.namespace is %q: expected lower-case letters, digits and -, 63 at most" $namespace) -}}
{{- end -}}
{{- if and .Values.jobs.createNamespace (eq $namespace .Release.Namespace) -}}
{{- fail (printf "jobs.createNamespace is set, but jobs.namespace is that of this release, %q, which is there: name another one, or leave jobs.createNamespace out" $namespace) -}}
{{- end -}}
{{- if and (not .Values.jobs.serviceAccount.create) (not .Values.jobs.serviceAccount.name) -}}
{{- fail "jobs.serviceAccount.create is false and jobs.serviceAccount.name is empty: name the ServiceAccount that pods of steps have" -}}
{{- end -}}
{{- if and .Values.rbac.create (not .Values.rbac.subjects) -}}
{{- fail "rbac.subjects is empty: name Airflow's ServiceAccounts that launch Jobs (airflow-triggerer, airflow-worker), or set rbac.create=false" -}}
{{- end -}}
{{- end -}}

{{- define "muster.checkGpuPools" -}}
{{- $seen := dict -}}
{{- range $name, $pool := .Values.gpuPools -}}
{{- $where := printf "gpuPools.%s" $name -}}
{{- if or (eq $name "jobs") (not (regexMatch "^[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?$" $name)) -}}
{{- fail (printf "gpuPools has a pool %q: expected lower-case letters, digits and -, 30 at most, and not \"jobs\"" $name) -}}
{{- end -}}
{{- $resource := default "nvidia.com/gpu" $pool.resource -}}
{{- if not (regexMatch "^[a-z0-9.-]+\\.[a-z]+/[A-Za-z0-9][A-Za-z0-9_.-]*$" $resource) -}}
{{- fail (printf "%s.resource is %q: expected an extended resource of nodes, such as nvidia.com/gpu or nvidia.com/mig-1g.10gb" $where $resource) -}}
{{- end -}}
{{- $class := include "muster.priorityClass" (dict "root" $ "name" $name "pool" $pool) -}}
{{- if hasKey $seen $class -}}
{{- fail (printf "%s.priorityClass.name is %q, as that of gpuPools.%s: a quota counts pods by their class, so each pool needs its own" $where $class (get $seen $class)) -}}
{{- end -}}
{{- $_ := set $seen $class $name -}}
{{- if and (ne (toString (default dict $pool.priorityClass).create) "false") (hasPrefix "system-" $class) -}}
{{- fail (printf "%s.priorityClass.name is %q: names that begin with system- are Kubernetes' own" $where $class) -}}
{{- end -}}
{{- if gt (int64 (default 0 (default dict $pool.priorityClass).value)) 1000000000 -}}
{{- fail (printf "%s.priorityClass.value is %d: expected 1000000000 at most; what is above is for Kubernetes' own pods" $where (int64 $pool.priorityClass.value)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "muster.checkWork" -}}
{{- $work := .Values.work -}}
{{- if $work.enabled -}}
{{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?(Mi|Gi|Ti|Pi|M|G|T|P)$" $work.size) -}}
{{- fail (printf "work.size is %q: expected a size with its unit, such as 500Gi or 1Ti" $work.size) -}}
{{- end -}}
{{- if and (not $work.existingClaim) (ne (include "muster.jobsNamespace" .) .Release.Namespace) -}}
{{- fail (printf "work.enabled: Airflow (namespace %q) and pods of steps (%q) both need the work directory, and a claim belongs to one namespace: make a claim of the same name on the same volume in each and give it as work.existingClaim, leave jobs.namespace out, or keep the work directory on s3://" .Release.Namespace (include "muster.jobsNamespace" .)) -}}
{{- end -}}
{{- $file := fromToml (default "" .Values.site.toml) -}}
{{- if hasPrefix "s3://" (toString $file.work) -}}
{{- fail (printf "work.enabled, but site.toml keeps the work directory on %s: leave work.enabled out, or say the mount path of the volume as work in the site file" $file.work) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "muster.checkNetwork" -}}
{{- $policy := .Values.networkPolicy -}}
{{- if $policy.enabled -}}
{{- if not $policy.dns.namespace -}}
{{- fail "networkPolicy.dns.namespace is empty: name the namespace of the cluster's DNS, as a rule kube-system" -}}
{{- end -}}
{{- range $name := list "s3" "postgres" -}}
{{- $to := get $policy $name -}}
{{- if and $to.enabled (not $to.cidrs) (not $to.namespace) -}}
{{- fail (printf "networkPolicy.%s.enabled says no place, which would allow all of them: give networkPolicy.%s.cidrs, or networkPolicy.%s.namespace" $name $name $name) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "dns" "s3" "postgres" -}}
{{- range (get $policy $name).cidrs -}}
{{- if not (regexMatch "^([0-9]{1,3}(\\.[0-9]{1,3}){3}/([0-9]|[12][0-9]|3[0-2])|[0-9a-fA-F:]*:[0-9a-fA-F:.]*/[0-9]{1,3})$" .) -}}
{{- fail (printf "networkPolicy.%s.cidrs has %q: expected an address with its prefix, such as 10.0.0.0/8" $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $file := fromToml (default "" .Values.site.toml) -}}
{{- if and (hasPrefix "s3://" (toString $file.work)) (not $policy.s3.enabled) (not $policy.extraEgress) -}}
{{- fail (printf "networkPolicy.s3.enabled is false, but site.toml keeps the work directory on %s, which pods of steps could not reach: enable it, with networkPolicy.s3.cidrs or networkPolicy.s3.namespace" $file.work) -}}
{{- end -}}
{{- end -}}
{{- end -}}
