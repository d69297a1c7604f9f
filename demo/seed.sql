-- A sample of PSScript's database (a library of PowerShell scripts with an AI assistant), filled with made-up data.
--
--   psql -X -q -v ON_ERROR_STOP=1 -f demo/seed.sql DATABASE
--
-- into an empty database on PostgreSQL 15 to 18 with pgvector. Variables (-v NAME=VALUE) say how much:
--   scripts, embeddings, logs, messages    rows of scripts, script_embeddings, execution_logs, chat_history
--   as_of                                  the newest data is this old (default: now); 200 days of it go back from here
-- A dump of scripts=5000 embeddings=11000 logs=900000 messages=1500 has about 487 MB. The same variables, as_of among them, give
-- the same data on each major version.
--
-- Tables, columns and most index names are the application's; so are its flaws, which an audit should find: redundant indexes,
-- foreign keys without an index or without ON DELETE, updated_at without a trigger. A few objects that the application lacks are
-- there to be hard on tools: hostile names and values, a partitioned table, a materialized view, a second schema.

\encoding UTF8
\set ON_ERROR_STOP 1
\if :{?scripts}
\else
  \set scripts 1200
\endif
\if :{?embeddings}
\else
  \set embeddings 1200
\endif
\if :{?logs}
\else
  \set logs 250000
\endif
\if :{?messages}
\else
  \set messages 400
\endif
\if :{?as_of}
\else
  SELECT now() AS as_of \gset
\endif
SELECT greatest(25, :scripts / 20) AS users \gset

SET client_min_messages = warning;
SET jit = off;
SET TimeZone = 'UTC';
-- An ivfflat index over 11,000 vectors does not fit into the default of 64 MB.
SET maintenance_work_mem = '256MB';
SET work_mem = '64MB';

\o /dev/null
-- All or nothing: an interrupted run leaves an empty database.
BEGIN;

CREATE EXTENSION IF NOT EXISTS vector;

-- ---- tables ---------------------------------------------------------------------------------------------------------------

CREATE TYPE user_role AS ENUM ('user', 'editor', 'admin');

CREATE TABLE users (
    id serial PRIMARY KEY,
    username varchar(255) NOT NULL UNIQUE,
    email varchar(255) NOT NULL UNIQUE,
    password_hash varchar(255) NOT NULL,
    display_name text,
    role user_role NOT NULL DEFAULT 'user',
    last_login_at timestamptz,
    login_attempts integer DEFAULT 0,
    locked_until timestamptz,
    created_at timestamptz DEFAULT current_timestamp,
    updated_at timestamptz DEFAULT current_timestamp
);

CREATE TABLE categories (
    id serial PRIMARY KEY,
    name varchar(255) NOT NULL UNIQUE,
    description text,
    created_at timestamptz DEFAULT current_timestamp,
    updated_at timestamptz DEFAULT current_timestamp
);

CREATE TABLE tags (
    id serial PRIMARY KEY,
    name varchar(255) NOT NULL UNIQUE,
    created_at timestamptz DEFAULT current_timestamp
);

CREATE TABLE scripts (
    id serial PRIMARY KEY,
    title varchar(255) NOT NULL,
    description text,
    content text NOT NULL,
    user_id integer,
    category_id integer,
    version integer NOT NULL DEFAULT 1,
    is_public boolean NOT NULL DEFAULT false,
    execution_count integer NOT NULL DEFAULT 0,
    average_execution_time double precision,
    last_executed_at timestamptz,
    file_hash varchar(255),
    created_at timestamptz DEFAULT current_timestamp,
    updated_at timestamptz DEFAULT current_timestamp
);

CREATE TABLE script_versions (
    id serial PRIMARY KEY,
    script_id integer,
    content text NOT NULL,
    version integer NOT NULL,
    user_id integer,
    commit_message text,
    created_at timestamptz DEFAULT current_timestamp,
    UNIQUE (script_id, version)
);

CREATE TABLE script_tags (
    script_id integer,
    tag_id integer,
    PRIMARY KEY (script_id, tag_id)
);

CREATE TABLE script_analysis (
    id serial PRIMARY KEY,
    script_id integer UNIQUE,
    purpose text,
    security_score double precision,
    quality_score double precision,
    risk_score double precision,
    suggestions jsonb DEFAULT '[]',
    command_details jsonb DEFAULT '[]',
    security_issues jsonb DEFAULT '[]',
    code_complexity_metrics jsonb DEFAULT '{}',
    analysis_version varchar(50) DEFAULT '1.0',
    created_at timestamptz DEFAULT current_timestamp,
    updated_at timestamptz DEFAULT current_timestamp
);

-- Long scripts are embedded in several pieces.
CREATE TABLE script_embeddings (
    id serial PRIMARY KEY,
    script_id integer,
    chunk integer NOT NULL DEFAULT 0,
    embedding vector(1536),
    created_at timestamptz DEFAULT current_timestamp,
    updated_at timestamptz DEFAULT current_timestamp,
    UNIQUE (script_id, chunk)
);

CREATE TABLE chat_history (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    messages jsonb NOT NULL,
    response text NOT NULL,
    embedding vector(1536),
    created_at timestamptz DEFAULT current_timestamp,
    updated_at timestamptz DEFAULT current_timestamp
);

-- The primary key comes after the data, as in a dump.
CREATE TABLE execution_logs (
    id bigserial,
    script_id integer,
    user_id integer,
    status varchar(50) NOT NULL,
    execution_time double precision,
    parameters jsonb DEFAULT '{}',
    output text,
    ip_address varchar(45),
    created_at timestamptz NOT NULL DEFAULT current_timestamp
);

CREATE TABLE comments (
    id serial PRIMARY KEY,
    script_id integer,
    user_id integer,
    content text NOT NULL,
    created_at timestamptz DEFAULT current_timestamp,
    updated_at timestamptz DEFAULT current_timestamp
);

CREATE TABLE documentation (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title text NOT NULL,
    url text,
    content text NOT NULL,
    search tsvector GENERATED ALWAYS AS (to_tsvector('english', title || ' ' || content)) STORED,
    created_at timestamptz DEFAULT current_timestamp,
    updated_at timestamptz DEFAULT current_timestamp
);

CREATE SEQUENCE audit_event_number START 1000;

CREATE TABLE audit_events (
    number bigint NOT NULL DEFAULT nextval('audit_event_number'),
    occurred_at timestamptz NOT NULL,
    user_id integer,
    action text NOT NULL,
    details jsonb,
    PRIMARY KEY (number, occurred_at)
) PARTITION BY RANGE (occurred_at);

-- One partition for each quarter that has data, and the next.
SELECT format('CREATE TABLE audit_events_%s PARTITION OF audit_events FOR VALUES FROM (%L) TO (%L)',
              to_char(quarter, 'YYYY"_q"Q'), quarter, quarter + interval '3 months')
FROM generate_series(date_trunc('quarter', :'as_of'::timestamptz - interval '200 days'),
                     date_trunc('quarter', :'as_of'::timestamptz) + interval '3 months', interval '3 months') AS quarter
\gexec

CREATE SCHEMA reporting;

CREATE SEQUENCE reporting.report_number START 4711 INCREMENT 7;

CREATE TABLE reporting.reports (
    number bigint PRIMARY KEY DEFAULT nextval('reporting.report_number'),
    quarter date NOT NULL UNIQUE,
    summary text,
    totals numeric(12, 2)[]
);

CREATE TABLE "We""ird; Drop Täble" (
    "Sp ace" text PRIMARY KEY,
    "select" integer REFERENCES tags,
    "Größe in €" numeric,
    "back\slash" bytea,
    "it's" timestamptz,
    "日本" double precision,
    "{curly}" text[]
);

-- ---- words ----------------------------------------------------------------------------------------------------------------
-- Functions that pick at random: one expression each, so that the planner puts it in place of the call. There are millions.

CREATE SCHEMA seed;
SET search_path = public, seed;

CREATE FUNCTION seed.roll(low integer, high integer) RETURNS integer LANGUAGE sql VOLATILE AS
$$ SELECT low + floor(random() * (high - low + 1))::integer $$;

CREATE FUNCTION seed.hex(digits integer) RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT left(md5(random()::text), digits) $$;

CREATE FUNCTION seed.verb() RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT ('{Get,Set,New,Remove,Add,Test,Invoke,Start,Stop,Update,Find,Export,Import,Convert,Resolve,Sync,Repair,Measure,Backup,
Restore,Enable,Disable,Register,Unregister,Wait,Write,Read,Compare,Merge,Publish,Initialize,Copy}'::text[])
[1 + floor(random() * 32)::integer] $$;

CREATE FUNCTION seed.noun() RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT ('{User,Group,Mailbox,Server,Service,Volume,Share,Folder,License,Certificate,Printer,Policy,Backup,Snapshot,Report,Queue,
Session,Process,Event,Log,Registry,Package,Update,Patch,Domain,Site,Subnet,Record,Zone,Lease,Scope,Vm,Host,Cluster,Node,Disk,
Quota,Profile,Token,Secret,Vault,Tenant,Device,Driver,Firewall,Rule,Route,Adapter,Endpoint,Agent,Task,Job,Schedule,Inventory,Asset,
Account,Contact,Permission,Acl,Owner,Role,Feature,Module,Template}'::text[])[1 + floor(random() * 64)::integer] $$;

CREATE FUNCTION seed.word() RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT ('{the,the,the,a,of,of,to,to,in,and,and,for,with,from,is,are,not,all,when,if,before,after,this,that,by,on,only,each,every,
has,have,must,can,should,will,because,until,without,still,again,server,user,account,mailbox,folder,share,service,list,value,
result,report,error,warning,domain,controller,group,member,policy,password,license,certificate,expiry,disk,space,threshold,
backup,job,schedule,remote,session,timeout,retry,queue,pending,stale,inactive,disabled,removed,created,checked,skipped,
exported,imported,production,staging,quarterly,nightly,manual,ticket,helpdesk,migration,legacy,tenant,cloud,hybrid,sync,
delta,baseline,inventory,printer,driver,registry,key,permission,inherited,explicit,owner,contact,quota,archive,retention,
compliance,request,approved,department,location,cluster,snapshot}'::text[])[1 + floor(random() * 118)::integer] $$;

CREATE FUNCTION seed.property() RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT ('{Name,DisplayName,SamAccountName,DistinguishedName,Status,State,Length,LastWriteTime,CreationTime,Enabled,Description,
Id,ProcessName,StartTime,HandleCount,FreeSpace,Size,DriveLetter,IPAddress,DNSHostName,OperatingSystem,LastLogonDate,
WhenCreated,PasswordLastSet,MemberOf,Manager,Department,FullName,Extension,Thumbprint,NotAfter,Subject}'::text[])
[1 + floor(random() * 32)::integer] $$;

CREATE FUNCTION seed.cmdlet() RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT ('{Get-ADUser,Get-ADComputer,Get-ADGroupMember,Get-CimInstance,Get-Service,Get-Process,Get-ChildItem,Get-EventLog,
Get-WinEvent,Get-Mailbox,Get-MailboxStatistics,Get-VM,Get-Volume,Get-Disk,Get-NetAdapter,Get-DnsServerResourceRecord,
Get-DhcpServerv4Lease,Get-ScheduledTask,Get-HotFix,Get-Printer,Get-SmbShare,Get-Acl,Get-AzVM,Get-MgUser,Get-Content,
Import-Csv,Invoke-RestMethod,Test-NetConnection,Resolve-DnsName,Get-ItemProperty,Get-GPO,Get-Counter}'::text[])
[1 + floor(random() * 32)::integer] $$;

CREATE FUNCTION seed.place() RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT ('{BER,MUC,HAM,ZRH,VIE,PAR,LON,NYC,TYO,SIN,SYD,AMS}'::text[])[1 + floor(random() * 12)::integer] $$;

CREATE FUNCTION seed.path() RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT ('{"C:\\Scripts","D:\\Daten","C:\\ProgramData\\PSScript","\\\\fileserver01\\it$","\\\\nas-berlin\\export","E:\\Backup",
"C:\\Windows\\Temp","D:\\Logs\\IIS","HKLM:\\SOFTWARE\\Policies","C:\\Users\\Public\\Documents","\\\\dc02\\SYSVOL","F:\\Förderung"}'
::text[])[1 + floor(random() * 12)::integer] $$;

CREATE FUNCTION seed.person() RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT ('{"Jörg Müller","Änne Groß","Søren Kjær","José Núñez","Zoë O''Brien","Łukasz Żak","山田 太郎","佐藤花子","Иван Петров",
"François Lefèvre","Nguyễn Văn An","Anna Schmidt","Tom Baker","Priya Nair","Ömer Yılmaz","Grace Kim"}'::text[])
[1 + floor(random() * 16)::integer] $$;

CREATE FUNCTION seed.words() RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT word() || ' ' || word() || ' ' || word() || ' ' || word() || ' ' || word() $$;

-- Sentences. The only real call: PL/pgSQL keeps its plan, where an SQL function with this subquery takes 0.4 ms each time.
CREATE FUNCTION seed.prose(sentences integer) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    line text;
    lines text[] := '{}';
BEGIN
    FOR i IN 1..sentences LOOP
        line := words() || ' ' || words();
        CASE roll(1, 4)
            WHEN 1 THEN line := line || '.';
            WHEN 2 THEN line := line || ', ' || words() || '.';
            WHEN 3 THEN line := line || '; ' || word() || ' ' || words() || '!';
            ELSE line := line || ' (' || words() || ').';
        END CASE;
        lines := lines || (upper(left(line, 1)) || substr(line, 2));
    END LOOP;
    RETURN array_to_string(lines, ' ');
END;
$$;

-- ---- scripts --------------------------------------------------------------------------------------------------------------
-- A script is a head, functions and a tail. A function is a head, statements, and a foot. Statements come from templates:
--   1, 2 variables of this script   3 function of this script   4 small number   5 large number   6 noun   7 words
--   8 path   9 hexadecimal digits   10 host   11 cmdlet   12 property   13 person

CREATE TABLE seed.statements (template text);
INSERT INTO seed.statements (template) VALUES
($t$    # %7$s$t$),
($t$    # TODO(%13$s): %7$s, see ticket INC%5$s$t$),
($t$    Write-Verbose "%7$s: $%1$s"$t$),
($t$    Write-Verbose -Message ('{0} - {1}' -f $%1$s, $%2$s.%12$s)$t$),
($t$    $%1$s = @()$t$),
($t$    $%1$s = %11$s -Filter "%12$s -like '*%6$s*'" | Select-Object -Property %12$s, Name, Enabled$t$),
($t$    $%1$s = %11$s -ComputerName '%10$s' -ErrorAction SilentlyContinue$t$),
($t$    $%2$s = $%1$s | Where-Object { $_.%12$s -gt %5$s -and $_.Name -notmatch '^%6$s\d+$' }$t$),
($t$    $%2$s = $%1$s | Sort-Object -Property %12$s -Descending | Select-Object -First %4$s$t$),
($t$    $%1$s | ForEach-Object { $_.%12$s.Trim() } | Out-File -FilePath '%8$s\%6$s-%5$s.log' -Append -Encoding utf8$t$),
($t$    %3$s -%6$s $%1$s -Timeout %5$s -Verbose:$VerbosePreference$t$),
($t$    $%2$s = %3$s -%6$s $%1$s -Credential $Credential -Force$t$),
($t$    if ($null -eq $%1$s) {
        Write-Warning "%7$s ($%2$s)"
        return
    }$t$),
($t$    if ($%1$s.Count -gt %4$s) {
        $%2$s = $%1$s[0..%4$s]
    } else {
        $%2$s = $%1$s
    }$t$),
($t$    if (-not (Test-Path -Path '%8$s\%6$s')) {
        New-Item -ItemType Directory -Path '%8$s\%6$s' -Force | Out-Null
    }$t$),
($t$    foreach ($item in $%1$s) {
        $%2$s += [PSCustomObject]@{
            Name     = $item.Name
            %12$s = $item.%12$s
            %6$s     = '%9$s'
            Checked  = (Get-Date).AddDays(-%4$s)
        }
    }$t$),
($t$    try {
        $%1$s = %11$s -ErrorAction Stop
    } catch [System.UnauthorizedAccessException] {
        Write-Error "Zugriff verweigert: $($_.Exception.Message)"
    } catch {
        Write-Log -Level ERROR -Message "%7$s`r`n$_"
        throw
    } finally {
        $%2$s = $null
    }$t$),
($t$    $%1$s = @{
        %6$s = "%9$s"
        Server = '%10$s'
        Port = %5$s
        Retry = %4$s
        %12$s = $%2$s
    }$t$),
($t$    $params%4$s = @{ Uri = "https://%10$s.corp.example/api/v%4$s/%6$s/%5$s"; Method = 'Post'; ContentType = 'application/json' }
    $%1$s = Invoke-RestMethod @params%4$s -Body ($%2$s | ConvertTo-Json -Depth 5)$t$),
($t$    $body = @"
Hallo %13$s,

%7$s.
"$($%1$s.%12$s)" -> $%2$s
\\%10$s\%6$s	%5$s

Grüße aus Köln, die IT
"@
    Send-MailMessage -To 'it-%9$s@corp.example' -Subject "%6$s: %7$s" -Body $body -SmtpServer '%10$s'$t$),
($t$    $query = @'
SELECT TOP %5$s "%12$s", [%6$s], 'it''s' AS note
FROM dbo.%6$sHistory
WHERE %12$s > DATEADD(day, -%4$s, GETDATE())
\.
'@$t$),
($t$    switch -Regex ($%1$s.%12$s) {
        '^(Running|Läuft)$' { $%2$s++; break }
        "^%6$s\s+\d{%4$s}" { Write-Host "✅ %7$s" -ForegroundColor Green }
        default { Write-Host "⚠️ $_" -ForegroundColor Yellow }
    }$t$),
($t$    while ($%1$s -lt %5$s) {
        Start-Sleep -Milliseconds %5$s
        $%1$s++
    }$t$),
($t$    $%1$s = [math]::Round(($%2$s.%12$s / 1GB), 2)$t$),
($t$    $%1$s = (Get-Date).ToString('yyyy-MM-dd_HHmmss') + "_$env:COMPUTERNAME.%9$s.csv"$t$),
($t$    $%1$s = Join-Path -Path $env:TEMP -ChildPath "%6$s_$([guid]::NewGuid()).tmp"$t$),
($t$    $%1$s = '%9$s-%5$s' -replace '-', '' -split '(?<=\G.{%4$s})'$t$),
($t$    Invoke-Command -ComputerName $%1$s -ScriptBlock { param($p) & "$env:SystemRoot\System32\%6$s.exe" /q $p } -ArgumentList %5$s$t$),
($t$    $%1$s | Export-Csv -Path "%8$s\$%2$s-%9$s.csv" -NoTypeInformation -Delimiter ';'$t$),
($t$    $%2$s = Import-Csv -Path '%8$s\%6$s.csv' | Group-Object -Property %12$s -AsHashTable$t$),
($t$    Set-ItemProperty -Path 'HKLM:\SOFTWARE\%6$s\%12$s' -Name '%6$s' -Value 0x%9$s -Type DWord$t$),
($t$    [void]$%1$s.Add("%13$s")$t$),
($t$    $%1$s = "日本語テスト: $($%2$s.%12$s) – %4$s €"$t$),
($t$    if ($PSCmdlet.ShouldProcess("$%1$s", '%7$s')) {
        %3$s -%6$s $%1$s -Confirm:$false
    }$t$),
($t$    Write-Progress -Activity '%7$s' -Status "$%1$s von %5$s" -PercentComplete (%4$s * 100 / %5$s)$t$),
($t$    $%1$s.%12$s = { param([string]$x) $x.ToUpper() + '%9$s' }.Invoke("$%2$s")$t$),
($t$    $runspace%4$s = [powershell]::Create().AddScript({ %11$s | Measure-Object -Property %12$s -Sum }).AddArgument($%1$s)$t$),
($t$    $%1$s = %11$s | Where-Object %12$s -in @('%6$s', "%9$s", '%10$s') | %% { $_.Name }$t$),
($t$$t$),
($t$$t$);

CREATE TABLE seed.function_heads (template text);
INSERT INTO seed.function_heads (template) VALUES
($t$function %1$s {
    <#
    .SYNOPSIS
        %2$s
    .PARAMETER %3$s
        %4$s
    .EXAMPLE
        PS C:\> %1$s -%3$s "%7$s" -Verbose
    #>
    [CmdletBinding(SupportsShouldProcess = $true)]
    param (
        [Parameter(Mandatory = $true, ValueFromPipeline = $true)]
        [ValidateNotNullOrEmpty()]
        [string]$%3$s,

        [int]$%5$s = %6$s
    )
$t$),
($t$function %1$s {
    [CmdletBinding()]
    param(
        [Parameter(Position = 0)] [string[]] $%3$s = @('%7$s'),
        [Parameter(Position = 1)] [ValidateRange(1, %6$s)] [int] $%5$s,
        [switch] $Force
    )
    # %4$s
$t$),
($t$# ------------------------------------------------------------------
# %2$s
# ------------------------------------------------------------------
function %1$s ($%3$s, $%5$s = %6$s)
{$t$),
($t$filter %1$s {
    # %4$s
    $%3$s = $_
    $%5$s = "%7$s"$t$);

CREATE TABLE seed.function_feet (template text);
INSERT INTO seed.function_feet (template) VALUES
($t$    return $%1$s
}
$t$),
($t$
    Write-Output -InputObject $%1$s
}
$t$),
($t$    $%1$s, $%2$s
}
$t$),
($t$    end { if ($%1$s) { $%2$s.Dispose() } }
}
$t$);

SELECT setseed(0.1);

INSERT INTO users (id, username, email, password_hash, display_name, role, last_login_at, login_attempts, locked_until, created_at,
                   updated_at)
SELECT id, 'user' || id, lower(place()) || '.' || id || '@corp.example', '$2b$12$' || translate(md5(id::text) || hex(21), '0', '/'),
       person(), CASE WHEN id <= 2 THEN 'admin' WHEN id % 7 = 0 THEN 'editor' ELSE 'user' END::user_role,
       CASE WHEN random() < 0.9 THEN :'as_of'::timestamptz - random() * interval '30 days' END,
       CASE WHEN random() < 0.1 THEN roll(1, 5) ELSE 0 END,
       CASE WHEN random() < 0.03 THEN :'as_of'::timestamptz + random() * interval '1 hour' END,
       created_at, created_at + random() * interval '90 days'
FROM (SELECT id, :'as_of'::timestamptz - interval '400 days' + random() * interval '300 days' AS created_at
      FROM generate_series(1, :users) AS id) AS made;

INSERT INTO categories (id, name, description, created_at, updated_at)
SELECT id, name, prose(1), :'as_of'::timestamptz - interval '400 days', :'as_of'::timestamptz - interval '300 days'
FROM unnest('{Active Directory,Exchange,Azure,Networking,Security,Reporting,Backup,Windows Update,Virtualization,SQL Server,
Printing,Utilities & Tools}'::text[]) WITH ORDINALITY AS category (name, id);

INSERT INTO tags (id, name, created_at)
SELECT id, name, :'as_of'::timestamptz - interval '400 days'
FROM unnest('{ad,exchange,azure,m365,security,audit,report,csv,backup,cleanup,network,dns,dhcp,gpo,wsus,hyper-v,vmware,sql,iis,
certificates,printer,inventory,monitoring,onboarding,offboarding,licensing,teams,sharepoint,intune,registry,c#,"größe","日本語",
deprecated,wip,prod}'::text[]) WITH ORDINALITY AS tag (name, id);

-- First what a script is like, then its text: each script draws its own variables and functions, and repeats them.
CREATE TABLE seed.scripts AS
SELECT id, verb() || '-' || noun() || noun() AS name,
       prose(1) AS synopsis,
       prose(roll(1, 4)) AS description,
       -- Log-normal: mostly 2 to 30 KB. A statement has about 150 bytes.
       least(1100, greatest(2, exp(4.17 + 0.98 * sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random()))::integer)) AS statements,
       roll(5, 16) AS function_length,
       -- An author has habits: a script uses only some of the templates, so that it repeats itself as real ones do.
       (SELECT array_agg(template)
        FROM (SELECT template FROM seed.statements ORDER BY random() + id * 0 LIMIT 8) AS habits) AS templates,
       (SELECT array_agg(lower(left(name, 1)) || substr(name, 2))
        FROM (SELECT noun() || (ARRAY[noun(), noun(), noun(), 'List', 'Name', 'Count'])[roll(1, 6)] AS name
              FROM generate_series(1, 9 + id * 0)) AS names) AS variables,
       (SELECT array_agg(verb() || '-' || noun() || noun()) FROM generate_series(1, 7 + id * 0)) AS functions,
       roll(1, :users) AS user_id,
       CASE WHEN random() < 0.7 THEN 1 ELSE roll(2, 5) END AS version,
       random() AS style,
       :'as_of'::timestamptz - interval '3 years' * power(random(), 1.5) AS created_at
FROM generate_series(1, :scripts) AS id;

INSERT INTO scripts (id, title, description, content, user_id, category_id, version, is_public, execution_count,
                     average_execution_time, last_executed_at, file_hash, created_at, updated_at)
SELECT id, left(name || ': ' || synopsis, 200), description, content, user_id, roll(1, 12), version, random() < 0.4,
       roll(0, 500), round((random() * 60)::numeric, 3), :'as_of'::timestamptz - random() * interval '60 days',
       encode(sha256(convert_to(content, 'UTF8')), 'hex'), created_at,
       created_at + (:'as_of'::timestamptz - created_at) * random()
FROM (
    SELECT s.*,
           -- One in seven comes from Windows with its line ends, some with a byte order mark, one in eight is indented by tabs.
           CASE WHEN style < 0.05 THEN U&'\FEFF' ELSE '' END
           || replace(CASE WHEN style BETWEEN 0.12 AND 0.25 THEN replace(text, '    ', E'\t') ELSE text END,
                      E'\n', CASE WHEN style < 0.14 THEN E'\r\n' ELSE E'\n' END) AS content
    FROM (
        SELECT s.*,
            format($t$<#
.SYNOPSIS
    %1$s

.DESCRIPTION
    %2$s

.PARAMETER ComputerName
    %3$s

.EXAMPLE
    PS C:\> .\%4$s.ps1 -ComputerName %5$s-SRV%6$s -Path '%7$s' -WhatIf

.NOTES
    Author  : %8$s
    Version : %9$s
    Created : %10$s
#>
#Requires -Version 5.1
#Requires -Modules ActiveDirectory

[CmdletBinding(SupportsShouldProcess = $true)]
param (
    [Parameter(Mandatory = $true)]
    [ValidateNotNullOrEmpty()]
    [string[]]$ComputerName,

    [string]$Path = "$env:ProgramData\%4$s",

    [PSCredential]$Credential,

    [switch]$Force
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$t$,
                s.synopsis, s.description, prose(1), s.name, place(), roll(1, 99), path(), person(), s.version || '.' || roll(0, 9),
                s.created_at::date)
            || (SELECT string_agg(
                    CASE
                        WHEN i % s.function_length = 0 THEN
                            format(heads[1 + s.function_length % head_count], verb() || '-' || noun() || noun(), prose(1),
                                   noun() || property(), words() || ' ' || words(), s.variables[roll(1, 9)], roll(10, 9000), hex(6))
                        WHEN i % s.function_length = s.function_length - 1 THEN
                            format(feet[1 + s.user_id % foot_count], s.variables[roll(1, 9)], s.variables[roll(1, 9)])
                        ELSE
                            format(s.templates[roll(1, 8)], s.variables[roll(1, 9)], s.variables[roll(1, 9)],
                                   s.functions[roll(1, 7)], roll(1, 99), roll(100, 99999), noun(), words(), path(), hex(8),
                                   place() || '-' || upper(left(noun(), 3)) || roll(10, 99), cmdlet(), property(), person())
                    END, E'\n')
                FROM generate_series(0, (s.statements / s.function_length + 1) * s.function_length - 1) AS i)
            || format($t$

# %1$s
Start-Transcript -Path (Join-Path $Path '%2$s.log') -Append
try {
    $ComputerName | %3$s | Export-Csv -Path "$Path\%2$s-$(Get-Date -Format yyyyMMdd).csv" -NoTypeInformation
    exit 0
} catch {
    Write-Error "%4$s: $($_.Exception.Message)"
    exit %5$s
} finally {
    Stop-Transcript
}
$t$, words(), s.name, s.functions[1], words(), roll(1, 9)) AS text
        FROM seed.scripts AS s,
            (SELECT array_agg(template) AS heads, count(*)::integer AS head_count FROM seed.function_heads) AS heads,
            (SELECT array_agg(template) AS feet, count(*)::integer AS foot_count FROM seed.function_feet) AS feet
    ) AS s
) AS written;

-- What was saved before: the newest earlier text of each script that has one.
INSERT INTO script_versions (script_id, content, version, user_id, commit_message, created_at)
SELECT id, replace(replace(content, 'Write-Verbose', 'Write-Host'), 'Set-StrictMode -Version Latest', '# Set-StrictMode'),
       version - 1, user_id, (ARRAY['Fix: ', 'Review: ', 'INC' || roll(10000, 99999) || ' ', ''])[roll(1, 4)] || words(),
       created_at
FROM scripts
WHERE version > 1
ORDER BY id;

INSERT INTO script_tags (script_id, tag_id)
SELECT DISTINCT script_id, floor(36 * power(random(), 1.5))::integer + 1
FROM generate_series(1, :scripts) AS script_id, generate_series(1, 3);

INSERT INTO script_analysis (script_id, purpose, security_score, quality_score, risk_score, suggestions, command_details,
                             security_issues, code_complexity_metrics, created_at, updated_at)
SELECT id, prose(2), round((random() * 10)::numeric, 1), round((random() * 10)::numeric, 1), round((random() * 10)::numeric, 1),
       jsonb_build_array(prose(1), prose(1)),
       jsonb_build_array(jsonb_build_object('name', cmdlet(), 'description', words(), 'risk', roll(1, 5)),
                         jsonb_build_object('name', cmdlet(), 'parameters', jsonb_build_array('-' || property(), '-' || noun()))),
       CASE WHEN random() < 0.3 THEN jsonb_build_array(jsonb_build_object('severity', roll(1, 4), 'text', prose(1))) ELSE '[]' END,
       jsonb_build_object('cyclomatic', roll(1, 60), 'nesting', roll(1, 7), 'lines', length(content) / 38),
       created_at + interval '5 minutes', created_at + interval '5 minutes'
FROM scripts
ORDER BY id;

-- ---- vectors --------------------------------------------------------------------------------------------------------------
-- As from a language model: length about 1, in clusters of uneven size. A component is a cluster's centre (0.8 of the length)
-- plus noise (0.6 of it); sqrt(12) makes the standard deviation of a uniform number 1.

SELECT setseed(0.2);

CREATE TABLE seed.centres AS
SELECT id, (SELECT array_agg((random() - 0.5) * sqrt(12) * 0.8 / sqrt(1536)) FROM generate_series(1, 1536 + id * 0)) AS centre
FROM generate_series(1, 60) AS id;

INSERT INTO script_embeddings (id, script_id, chunk, embedding, created_at, updated_at)
SELECT n, (n - 1) % :scripts + 1, (n - 1) / :scripts,
       (SELECT array_agg((component + (random() - 0.5) * 0.0530)::real) FROM unnest(centre) AS component)::vector(1536),
       made, made
FROM (SELECT n, floor(60 * power(random(), 1.6))::integer + 1 AS centre_id,
             :'as_of'::timestamptz - random() * interval '150 days' AS made
      FROM generate_series(1, :embeddings) AS n) AS wanted
JOIN seed.centres ON centres.id = centre_id
ORDER BY n;

INSERT INTO chat_history (id, user_id, messages, response, embedding, created_at, updated_at)
SELECT n, roll(1, :users),
       jsonb_build_array(
           jsonb_build_object('role', 'system', 'content', 'You are a PowerShell expert. Answer briefly, with "code".'),
           jsonb_build_object('role', 'user', 'content', 'How do I ' || lower(verb()) || ' ' || words() || '? ' || cmdlet()
                                                         || E' says:\n\t"' || words() || E'\\' || noun() || '"')),
       prose(roll(2, 6)) || E'\n\n```powershell\n$' || lower(noun()) || ' = ' || cmdlet() || ' -' || property() || E' ''' || path()
           || E'''\n```\n' || prose(roll(1, 3)) || ' 👍',
       -- Some answers were never embedded.
       CASE WHEN random() < 0.75 THEN
           (SELECT array_agg((component + (random() - 0.5) * 0.0530)::real) FROM unnest(centre) AS component)::vector(1536)
       END,
       made, made
FROM (SELECT n, roll(1, 60) AS centre_id, :'as_of'::timestamptz - random() * interval '200 days' AS made
      FROM generate_series(1, :messages) AS n) AS wanted
JOIN seed.centres ON centres.id = centre_id
ORDER BY n;

-- ---- logs -----------------------------------------------------------------------------------------------------------------

SELECT setseed(0.3);

-- Spread over 200 days, most of it around noon: x + sin(2πx)/2π·0.7 pulls a share of a day x towards 0.5.
INSERT INTO execution_logs (id, script_id, user_id, status, execution_time, parameters, output, ip_address, created_at)
SELECT n, script_id, CASE WHEN random() < 0.93 THEN floor(:users * power(random(), 1.5))::integer + 1 END, status,
       CASE WHEN status = 'running' THEN NULL WHEN status = 'timeout' THEN 300 ELSE round((-8 * ln(1 - random()))::numeric, 3) END,
       CASE
           WHEN kind < 0.26 THEN '{}'::jsonb
           WHEN kind < 0.55 THEN jsonb_build_object('ComputerName', place() || '-SRV' || roll(10, 99))
           WHEN kind < 0.70 THEN jsonb_build_object('Path', path() || '\' || noun(), 'Force', random() < 0.5)
           WHEN kind < 0.82 THEN jsonb_build_object('Identity', lower(noun()) || roll(1, 999), 'Days', roll(1, 365))
           WHEN kind < 0.90 THEN jsonb_build_object('Server', place() || '-DC0' || roll(1, 4), 'Credential', NULL, 'WhatIf', true)
           WHEN kind < 0.96 THEN jsonb_build_object('Filter', property() || ' -like "*' || noun() || '*"')
           WHEN kind < 0.99 THEN jsonb_build_object('Names', jsonb_build_array(person(), person()), 'Limit', random() * 100)
           ELSE jsonb_build_object('note', E'it''s a "test"\n\\. \t' || word(), 'größe', roll(1, 9))
       END,
       CASE
           WHEN status = 'running' OR kind2 < 0.36 THEN NULL
           WHEN status = 'failed' THEN
               'ERROR: ' || words() || E'\n    at ' || path() || '\' || noun() || '.ps1: line ' || roll(1, 900)
               || E'\n+ CategoryInfo : NotSpecified: (:) [' || cmdlet() || '], ' || noun() || 'Exception'
           WHEN status = 'timeout' THEN 'Stopped after 300 seconds: ' || words()
           WHEN kind2 < 0.55 THEN roll(0, 5000) || ' objects processed'
           WHEN kind2 < 0.75 THEN noun() || ' ' || hex(6) || ': ' || words()
           WHEN kind2 < 0.90 THEN 'OK ' || words() || ' ' || words()
           WHEN kind2 < 0.98 THEN
               property() || E'\t' || property() || E'\n----\t----\n' || lower(noun()) || roll(1, 99) || E'\t' || roll(1, 99999)
               || E'\n' || lower(noun()) || roll(1, 99) || E'\t' || path()
           WHEN kind2 < 0.99 THEN ''
           WHEN kind2 < 0.994 THEN E'end of data?\r\n\\.\r\n' || hex(4)
           WHEN kind2 < 0.996 THEN '\N'
           WHEN kind2 < 0.998 THEN E'\\.\n' || person() || E'\b\f\x0b\x1b[32m✓\x1b[0m\\'
           ELSE E'\\.'
       END,
       '10.' || roll(0, 9) || '.' || roll(0, 255) || '.' || roll(1, 254),
       created_at
FROM (SELECT n, floor(:scripts * power(random(), 2.5))::integer + 1 AS script_id, random() AS kind, random() AS kind2, created_at,
             CASE
                 WHEN created_at > :'as_of'::timestamptz - interval '5 minutes' AND random() < 0.5 THEN 'running'
                 WHEN random() < 0.87 THEN 'success'
                 WHEN random() < 0.72 THEN 'failed'
                 WHEN random() < 0.6 THEN 'timeout'
                 ELSE 'cancelled'
             END AS status
      FROM (SELECT n, CASE
                          WHEN at > :'as_of'::timestamptz - interval '1 day' THEN at -- not into the future
                          ELSE day + (x + sin(2 * pi() * x) / (2 * pi()) * 0.7) * interval '1 day'
                      END - random() * interval '90 seconds' AS created_at
            FROM (SELECT n, at, date_trunc('day', at) AS day, extract(epoch FROM at - date_trunc('day', at)) / 86400 AS x
                  FROM (SELECT n, :'as_of'::timestamptz - interval '200 days' * ((:logs - n) / :logs::float8) AS at
                        FROM generate_series(1, :logs) AS n) AS even) AS days) AS times) AS drawn;

INSERT INTO audit_events (occurred_at, user_id, action, details)
SELECT :'as_of'::timestamptz - interval '200 days' * (1 - n / (:scripts * 10.0)), roll(1, :users),
       (ARRAY['login', 'logout', 'script.create', 'script.update', 'script.delete', 'user.lock'])[roll(1, 6)],
       CASE WHEN random() < 0.5 THEN jsonb_build_object('script', roll(1, :scripts), 'reason', words()) END
FROM generate_series(1, :scripts * 10) AS n;

-- ---- the small tables -----------------------------------------------------------------------------------------------------

SELECT setseed(0.4);

INSERT INTO comments (script_id, user_id, content, created_at, updated_at)
SELECT roll(1, :scripts), CASE WHEN random() < 0.95 THEN roll(1, :users) END,
       CASE WHEN n % 50 = 0 THEN E'+1 👍🏽 "works"\\ \t für mich' ELSE prose(roll(1, 3)) END, made, made
FROM (SELECT n, :'as_of'::timestamptz - random() * interval '200 days' AS made FROM generate_series(1, :scripts * 2) AS n) AS times;

INSERT INTO documentation (title, url, content, created_at, updated_at)
SELECT name || ' (' || module || ')', 'https://docs.example/' || lower(name), E'# ' || name || E'\n\n' || prose(roll(5, 25)),
       :'as_of'::timestamptz - interval '90 days', :'as_of'::timestamptz - interval '9 days'
FROM (SELECT verb() || '-' || noun() || noun() AS name, noun() || 'Tools' AS module FROM generate_series(1, 200)) AS pages;

INSERT INTO reporting.reports (quarter, summary, totals)
SELECT quarter, prose(2), ARRAY[roll(1, 1000000) / 100.0, NULL, -0.5]
FROM generate_series(date_trunc('quarter', :'as_of'::timestamptz - interval '4 years'), :'as_of'::timestamptz, interval '3 months')
     AS quarter;

INSERT INTO "We""ird; Drop Täble" VALUES
('', 1, 0.1, '\x', 'infinity', 'NaN', '{}'),
('\.', 2, 'NaN', '\x5c2e0a', '-infinity', 'Infinity', '{NULL,"NULL",""}'),
('\N', NULL, NULL, NULL, NULL, NULL, NULL),
(E'tab\there, line\nthere\r\nand \\ there', 3, -1e-20, '\x00ff', '2024-02-29 23:59:59.999999+00', '-0', '{"a,b","c\"d","e\\f"}'),
('''; DROP TABLE scripts; --', 4, 123456789012345678901234567890.123456789, '\xdeadbeef', '0044-03-15 00:00:00+00 BC', 1e-307,
 '{{1,2},{3,4}}'),
('$$ $body$ %s {} ${x} :x ?', 5, 0, '\x27', 'epoch', 0.1, '{"}"}'),
(U&'Ä ö ß 日本語 👩\200D👩\200D👧 \202Ertl', 33, 1, '\xc3a4', '9999-12-31 00:00:00+00', 5e-324, '{日本}'),
(' leading and trailing ', 34, 1.10, '\x20', '2026-03-29 01:30:00+00', 'Infinity', '{" "}');

-- The rows above brought their own numbers.
SELECT format('SELECT setval(%L, max(id)) FROM %I', pg_get_serial_sequence(name, 'id'), name)
FROM unnest('{users,categories,tags,script_embeddings,scripts,chat_history,execution_logs}'::text[]) AS name
\gexec

DROP SCHEMA seed CASCADE;
SET search_path = public;

-- ---- indexes --------------------------------------------------------------------------------------------------------------

ALTER TABLE execution_logs ADD PRIMARY KEY (id);

CREATE INDEX idx_users_email ON users (email);
CREATE INDEX idx_users_username ON users (username);
CREATE INDEX idx_users_role ON users (role);
CREATE INDEX idx_users_locked_until ON users (locked_until) WHERE locked_until IS NOT NULL;
CREATE INDEX idx_scripts_category ON scripts (category_id);
CREATE INDEX idx_scripts_user ON scripts (user_id);
CREATE INDEX idx_scripts_file_hash ON scripts (file_hash);
CREATE INDEX idx_scripts_title ON scripts (lower(title));
CREATE INDEX idx_script_versions_script ON script_versions (script_id);
CREATE INDEX idx_script_analysis_script ON script_analysis (script_id);
CREATE INDEX idx_chat_history_user_id ON chat_history (user_id);
CREATE INDEX idx_chat_history_created_at ON chat_history (created_at);
CREATE INDEX idx_execution_logs_script ON execution_logs (script_id);
CREATE INDEX idx_execution_logs_created_at ON execution_logs (created_at);
CREATE INDEX idx_documentation_search ON documentation USING gin (search);
CREATE INDEX idx_audit_events_user ON audit_events (user_id);
CREATE INDEX "idx ""We'ird;" ON "We""ird; Drop Täble" (lower("Sp ace"), "Größe in €" DESC NULLS LAST) INCLUDE ("it's");

-- After the data: the lists of an ivfflat index are trained on the rows that exist when it is built.
CREATE INDEX script_embeddings_idx ON script_embeddings USING ivfflat (embedding vector_cosine_ops) WITH (lists = 100);
CREATE INDEX chat_history_embedding_idx ON chat_history USING ivfflat (embedding vector_cosine_ops) WITH (lists = 100);

-- ---- foreign keys ---------------------------------------------------------------------------------------------------------

ALTER TABLE scripts
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE,
    ADD FOREIGN KEY (category_id) REFERENCES categories ON DELETE SET NULL;
ALTER TABLE script_versions
    ADD FOREIGN KEY (script_id) REFERENCES scripts ON DELETE CASCADE,
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE SET NULL;
ALTER TABLE script_tags
    ADD FOREIGN KEY (script_id) REFERENCES scripts ON DELETE CASCADE,
    ADD FOREIGN KEY (tag_id) REFERENCES tags ON DELETE CASCADE;
ALTER TABLE script_analysis ADD FOREIGN KEY (script_id) REFERENCES scripts ON DELETE CASCADE;
ALTER TABLE script_embeddings ADD FOREIGN KEY (script_id) REFERENCES scripts;
ALTER TABLE chat_history ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE;
ALTER TABLE execution_logs
    ADD FOREIGN KEY (script_id) REFERENCES scripts ON DELETE CASCADE,
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE SET NULL;
ALTER TABLE comments
    ADD FOREIGN KEY (script_id) REFERENCES scripts ON DELETE CASCADE,
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE SET NULL;
ALTER TABLE audit_events ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE SET NULL;

-- ---- functions, triggers, views, comments ---------------------------------------------------------------------------------

CREATE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    -- It's "now", whatever the client sent; \. and $$ are only text here.
    NEW.updated_at = current_timestamp;
    RETURN NEW;
END;
$body$;

CREATE TRIGGER update_users_updated_at BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER update_categories_updated_at BEFORE UPDATE ON categories FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER update_scripts_updated_at BEFORE UPDATE ON scripts FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER update_script_analysis_updated_at BEFORE UPDATE ON script_analysis
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER update_comments_updated_at BEFORE UPDATE ON comments FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER update_chat_history_updated_at BEFORE UPDATE ON chat_history
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

CREATE VIEW script_overview AS
SELECT scripts.id, scripts.title, categories.name AS category, users.display_name AS author, analysis.security_score,
       octet_length(scripts.content) AS bytes
FROM scripts
LEFT JOIN categories ON categories.id = scripts.category_id
LEFT JOIN users ON users.id = scripts.user_id
LEFT JOIN script_analysis AS analysis ON analysis.script_id = scripts.id;

CREATE MATERIALIZED VIEW reporting.daily_executions AS
SELECT (created_at AT TIME ZONE 'UTC')::date AS day, status, count(*) AS executions, avg(execution_time::numeric) AS average_seconds
FROM execution_logs
GROUP BY 1, 2;
CREATE UNIQUE INDEX daily_executions_day_status ON reporting.daily_executions (day, status);

COMMENT ON TABLE chat_history IS E'The assistant''s conversations;\nits "answers" are searched by meaning \\ not by words';
COMMENT ON TABLE "We""ird; Drop Täble" IS 'It''s a "test"; DROP TABLE users; --
$$ second line';
COMMENT ON COLUMN "We""ird; Drop Täble"."Sp ace" IS 'Ein Leerzeichen';
COMMENT ON COLUMN scripts.file_hash IS 'SHA-256 of the content, in UTF-8, as hexadecimal digits';
COMMENT ON SCHEMA reporting IS 'Figures for the quarter''s report';

COMMIT;

ANALYZE;
\o
