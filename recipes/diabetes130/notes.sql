-- Two chart texts a stay, written from columns: an H&P from what is known at admission, a discharge summary from what
-- is known at discharge. Which column may stand where, and why: docs/decisions/0008-diabetes130-columns.md.
-- Every sentence says what a column says, no more. `readmitted` stands in neither.
WITH titles(code, title) AS (
    VALUES
        ('008', 'intestinal infection'), ('038', 'septicemia'), ('041', 'bacterial infection'), ('042', 'HIV disease'),
        ('070', 'viral hepatitis'), ('112', 'candidiasis'), ('135', 'sarcoidosis'), ('153', 'colon cancer'),
        ('157', 'pancreatic cancer'), ('162', 'lung cancer'), ('174', 'breast cancer'), ('185', 'prostate cancer'),
        ('188', 'bladder cancer'), ('189', 'kidney cancer'), ('196', 'metastatic cancer of lymph nodes'),
        ('197', 'metastatic cancer'), ('198', 'metastatic cancer'), ('202', 'lymphoma'), ('203', 'multiple myeloma'),
        ('204', 'lymphoid leukemia'), ('205', 'myeloid leukemia'), ('211', 'benign tumor of the digestive tract'),
        ('218', 'uterine fibroid'), ('244', 'hypothyroidism'), ('250', 'diabetes mellitus'), ('263', 'malnutrition'),
        ('272', 'hyperlipidemia'), ('274', 'gout'), ('276', 'fluid and electrolyte disorder'), ('278', 'obesity'),
        ('280', 'iron deficiency anemia'), ('284', 'aplastic anemia'), ('285', 'anemia'), ('286', 'coagulation defect'),
        ('287', 'thrombocytopenia'), ('288', 'white blood cell disorder'), ('290', 'dementia'),
        ('291', 'alcohol withdrawal'), ('292', 'drug withdrawal'), ('293', 'delirium'), ('294', 'dementia'),
        ('295', 'schizophrenia'), ('296', 'mood disorder'), ('300', 'anxiety'), ('303', 'alcohol dependence'),
        ('304', 'drug dependence'), ('305', 'substance abuse'), ('311', 'depression'), ('331', 'Alzheimer disease'),
        ('332', 'Parkinson disease'), ('340', 'multiple sclerosis'), ('342', 'hemiplegia'), ('345', 'epilepsy'),
        ('348', 'encephalopathy'), ('357', 'neuropathy'), ('396', 'mitral and aortic valve disease'),
        ('397', 'valve disease'), ('398', 'rheumatic heart disease'), ('401', 'hypertension'),
        ('402', 'hypertensive heart disease'), ('403', 'hypertensive kidney disease'),
        ('404', 'hypertensive heart and kidney disease'), ('410', 'acute myocardial infarction'),
        ('411', 'acute ischemic heart disease'), ('412', 'old myocardial infarction'), ('413', 'angina'),
        ('414', 'coronary artery disease'), ('415', 'pulmonary embolism'), ('416', 'pulmonary hypertension'),
        ('424', 'valve disease'), ('425', 'cardiomyopathy'), ('426', 'conduction disorder'),
        ('427', 'cardiac arrhythmia'), ('428', 'heart failure'), ('431', 'intracerebral hemorrhage'),
        ('433', 'carotid stenosis'), ('434', 'stroke'), ('435', 'transient ischemic attack'), ('436', 'stroke'),
        ('437', 'cerebrovascular disease'), ('438', 'late effects of stroke'), ('440', 'atherosclerosis'),
        ('441', 'aortic aneurysm'), ('443', 'peripheral vascular disease'), ('444', 'arterial embolism'),
        ('453', 'venous thrombosis'), ('455', 'hemorrhoids'), ('458', 'hypotension'), ('466', 'acute bronchitis'),
        ('482', 'bacterial pneumonia'), ('486', 'pneumonia'), ('490', 'bronchitis'), ('491', 'chronic bronchitis'),
        ('492', 'emphysema'), ('493', 'asthma'), ('496', 'chronic obstructive pulmonary disease'),
        ('507', 'aspiration pneumonia'), ('511', 'pleural effusion'), ('515', 'pulmonary fibrosis'),
        ('518', 'respiratory failure or lung collapse'), ('530', 'esophageal disease'), ('531', 'gastric ulcer'),
        ('532', 'duodenal ulcer'), ('535', 'gastritis'), ('536', 'gastroparesis or dyspepsia'),
        ('540', 'acute appendicitis'), ('552', 'obstructed hernia'), ('553', 'hernia'), ('557', 'bowel ischemia'),
        ('558', 'gastroenteritis'), ('560', 'bowel obstruction'), ('562', 'diverticular disease'),
        ('564', 'constipation'), ('569', 'intestinal disorder'), ('571', 'chronic liver disease'),
        ('572', 'hepatic encephalopathy or liver failure'), ('574', 'gallstones'), ('575', 'cholecystitis'),
        ('576', 'biliary disease'), ('577', 'pancreatitis'), ('578', 'gastrointestinal bleeding'),
        ('581', 'nephrotic syndrome'), ('584', 'acute kidney failure'), ('585', 'chronic kidney disease'),
        ('590', 'pyelonephritis'), ('591', 'hydronephrosis'), ('592', 'kidney stones'), ('593', 'kidney disorder'),
        ('595', 'cystitis'), ('596', 'bladder disorder'), ('599', 'urinary tract infection'),
        ('600', 'prostate enlargement'), ('618', 'genital prolapse'), ('648', 'pregnancy with diabetes'),
        ('681', 'cellulitis of finger or toe'), ('682', 'cellulitis'), ('707', 'chronic skin ulcer'),
        ('710', 'connective tissue disease'), ('715', 'osteoarthritis'), ('719', 'joint disorder'),
        ('721', 'spondylosis'), ('722', 'disc disorder'), ('724', 'back pain'), ('728', 'muscle disorder'),
        ('729', 'soft tissue disorder'), ('730', 'osteomyelitis'), ('731', 'bone disease'),
        ('733', 'osteoporosis or fracture'), ('780', 'syncope or general symptoms'), ('781', 'neurologic symptoms'),
        ('782', 'edema or skin symptoms'), ('784', 'head and neck symptoms'), ('785', 'cardiovascular symptoms'),
        ('786', 'chest pain or respiratory symptoms'), ('787', 'nausea, vomiting or dysphagia'),
        ('788', 'urinary symptoms'), ('789', 'abdominal pain'), ('790', 'abnormal blood findings'),
        ('794', 'abnormal function study'), ('799', 'ill-defined condition'), ('805', 'vertebral fracture'),
        ('808', 'pelvic fracture'), ('812', 'humerus fracture'), ('820', 'hip fracture'), ('821', 'femur fracture'),
        ('824', 'ankle fracture'), ('995', 'sepsis or allergic reaction'), ('996', 'device or graft complication'),
        ('997', 'surgical complication'), ('998', 'procedure complication'), ('V10', 'history of cancer'),
        ('V12', 'history of disease'), ('V15', 'personal risk history'), ('V42', 'organ transplant'),
        ('V43', 'joint or organ replacement'), ('V45', 'cardiac device, dialysis or bypass status'),
        ('V54', 'orthopedic aftercare'), ('V57', 'rehabilitation'), ('V58', 'chemotherapy or other aftercare'),
        ('V85', 'body mass index')
), padded AS (
    SELECT
        d.*,
        regexp_replace(regexp_replace(nullif(d.diag_1, '?'), '^([0-9])$', '00\1'), '^([0-9]{2})$', '0\1') AS code_1,
        regexp_replace(regexp_replace(nullif(d.diag_2, '?'), '^([0-9])$', '00\1'), '^([0-9]{2})$', '0\1') AS code_2,
        regexp_replace(regexp_replace(nullif(d.diag_3, '?'), '^([0-9])$', '00\1'), '^([0-9]{2})$', '0\1') AS code_3
    FROM diabetic_data AS d
), parts AS (
    SELECT
        d.*,
        -- admission: demographics, route, specialty, payer, use of care in the year before
        CASE d.gender WHEN 'Female' THEN 'Woman' WHEN 'Male' THEN 'Man' ELSE 'Patient' END
            || ' between ' || regexp_extract(d.age, '([0-9]+)-([0-9]+)', 1) || ' and '
            || regexp_extract(d.age, '([0-9]+)-([0-9]+)', 2) || ' years of age with diabetes mellitus, '
            || CASE CAST(d.admission_type_id AS INTEGER)
                WHEN 1 THEN 'admitted as an emergency'
                WHEN 2 THEN 'admitted urgently'
                WHEN 3 THEN 'admitted electively'
                WHEN 4 THEN 'admitted as a newborn'
                WHEN 7 THEN 'admitted to the trauma center'
                ELSE 'admitted, type of admission not recorded,'
            END
            || CASE CAST(d.admission_source_id AS INTEGER)
                WHEN 1 THEN ' on referral of a physician'
                WHEN 2 THEN ' on referral of a clinic'
                WHEN 3 THEN ' on referral of the HMO'
                WHEN 4 THEN ' by transfer from another hospital'
                WHEN 5 THEN ' from a skilled nursing facility'
                WHEN 6 THEN ' from another health care facility'
                WHEN 7 THEN ' through the emergency room'
                WHEN 8 THEN ' by court or law enforcement'
                WHEN 10 THEN ' by transfer from a critical access hospital'
                WHEN 11 THEN ' after a normal delivery'
                WHEN 13 THEN ' as a sick baby'
                WHEN 14 THEN ' after birth outside the hospital'
                WHEN 22 THEN ' by transfer within the hospital'
                WHEN 25 THEN ' from an ambulatory surgery center'
                ELSE ', source not recorded'
            END
            || '. ' AS admission,
        CASE
            WHEN d.medical_specialty IN ('?', 'PhysicianNotFound') THEN 'Specialty of the admitting physician not recorded. '
            ELSE 'Admitting physician: ' || lower(trim(regexp_replace(
                regexp_replace(d.medical_specialty, 'and([A-Z])', ' and \1', 'g'), '([a-z])([A-Z])', '\1 \2', 'g'))) || '. '
        END AS specialty,
        CASE d.payer_code WHEN '?' THEN 'Payer not recorded. ' ELSE 'Payer ' || d.payer_code || '. ' END
            || CASE d.weight WHEN '?' THEN '' ELSE 'Weight class ' || d.weight || '. ' END AS registration,
        'In the year before this admission: '
            || CASE d.number_inpatient WHEN '0' THEN 'no inpatient stay' WHEN '1' THEN '1 inpatient stay'
                ELSE d.number_inpatient || ' inpatient stays' END
            || CASE d.number_emergency WHEN '0' THEN ', no emergency visit' WHEN '1' THEN ', 1 emergency visit'
                ELSE ', ' || d.number_emergency || ' emergency visits' END
            || CASE d.number_outpatient WHEN '0' THEN ', no outpatient visit' WHEN '1' THEN ', 1 outpatient visit'
                ELSE ', ' || d.number_outpatient || ' outpatient visits' END
            || '. ' AS earlier_care,
        -- discharge: what the stay filled
        'Stay of ' || d.time_in_hospital || CASE d.time_in_hospital WHEN '1' THEN ' day' ELSE ' days' END || ' with '
            || d.num_lab_procedures || ' laboratory tests, '
            || CASE d.num_procedures WHEN '0' THEN 'no' ELSE d.num_procedures END || ' other procedures and '
            || d.num_medications || ' medications. ' AS course,
        'Principal diagnosis: ' || coalesce(coalesce(t1.title, 'other') || ' (' || d.code_1 || ')', 'not coded')
            || '. Further diagnoses: ' || coalesce(coalesce(t2.title, 'other') || ' (' || d.code_2 || ')', 'none coded')
            || coalesce(', ' || coalesce(t3.title, 'other') || ' (' || d.code_3 || ')', '')
            || '. Diagnoses in all: ' || d.number_diagnoses || '. ' AS diagnoses,
        CASE d."A1Cresult" WHEN '>8' THEN 'HbA1c above 8 percent. ' WHEN '>7' THEN 'HbA1c between 7 and 8 percent. '
            WHEN 'Norm' THEN 'HbA1c normal. ' ELSE 'HbA1c not measured. ' END
            || CASE d.max_glu_serum WHEN '>300' THEN 'Serum glucose above 300. ' WHEN '>200' THEN 'Serum glucose above 200. '
                WHEN 'Norm' THEN 'Serum glucose normal. ' ELSE '' END AS results,
        CASE
            WHEN d."diabetesMed" = 'No' THEN 'No diabetes medication prescribed. '
            ELSE 'Diabetes medication: ' || coalesce(nullif(concat_ws(', ',
                CASE d.insulin WHEN 'Up' THEN 'insulin raised' WHEN 'Down' THEN 'insulin lowered' WHEN 'Steady' THEN 'insulin unchanged' END,
                CASE d.metformin WHEN 'Up' THEN 'metformin raised' WHEN 'Down' THEN 'metformin lowered' WHEN 'Steady' THEN 'metformin unchanged' END,
                CASE d.glipizide WHEN 'Up' THEN 'glipizide raised' WHEN 'Down' THEN 'glipizide lowered' WHEN 'Steady' THEN 'glipizide unchanged' END,
                CASE d.glyburide WHEN 'Up' THEN 'glyburide raised' WHEN 'Down' THEN 'glyburide lowered' WHEN 'Steady' THEN 'glyburide unchanged' END,
                CASE d.glimepiride WHEN 'Up' THEN 'glimepiride raised' WHEN 'Down' THEN 'glimepiride lowered' WHEN 'Steady' THEN 'glimepiride unchanged' END,
                CASE d.pioglitazone WHEN 'Up' THEN 'pioglitazone raised' WHEN 'Down' THEN 'pioglitazone lowered' WHEN 'Steady' THEN 'pioglitazone unchanged' END,
                CASE d.rosiglitazone WHEN 'Up' THEN 'rosiglitazone raised' WHEN 'Down' THEN 'rosiglitazone lowered' WHEN 'Steady' THEN 'rosiglitazone unchanged' END,
                CASE d.repaglinide WHEN 'No' THEN NULL ELSE 'repaglinide' END,
                CASE d.nateglinide WHEN 'No' THEN NULL ELSE 'nateglinide' END,
                CASE d.acarbose WHEN 'No' THEN NULL ELSE 'acarbose' END,
                CASE d."glyburide-metformin" WHEN 'No' THEN NULL ELSE 'glyburide with metformin' END
            ), ''), 'another drug') || '. '
        END
            || CASE d.change WHEN 'Ch' THEN 'Diabetes regimen changed. ' ELSE 'Diabetes regimen not changed. ' END AS medication,
        CASE CAST(d.discharge_disposition_id AS INTEGER)
            WHEN 1 THEN 'Discharged home.'
            WHEN 2 THEN 'Transferred to a short-term hospital.'
            WHEN 3 THEN 'Discharged to a skilled nursing facility.'
            WHEN 4 THEN 'Discharged to an intermediate care facility.'
            WHEN 5 THEN 'Transferred to another inpatient institution.'
            WHEN 6 THEN 'Discharged home with home health service.'
            WHEN 7 THEN 'Left against medical advice.'
            WHEN 8 THEN 'Discharged home with an IV provider.'
            WHEN 9 THEN 'Admitted as an inpatient to this hospital.'
            WHEN 10 THEN 'Transferred for neonatal aftercare.'
            WHEN 11 THEN 'Expired in the hospital.'
            WHEN 12 THEN 'Still patient or expected back for outpatient services.'
            WHEN 13 THEN 'Discharged to hospice at home.'
            WHEN 14 THEN 'Discharged to a hospice facility.'
            WHEN 15 THEN 'Transferred to a swing bed.'
            WHEN 16 THEN 'Referred to outpatient services elsewhere.'
            WHEN 17 THEN 'Referred to outpatient services of this hospital.'
            WHEN 19 THEN 'Expired under hospice care at home.'
            WHEN 20 THEN 'Expired under hospice care in a facility.'
            WHEN 21 THEN 'Expired under hospice care.'
            WHEN 22 THEN 'Discharged to a rehabilitation facility.'
            WHEN 23 THEN 'Discharged to a long-term care hospital.'
            WHEN 24 THEN 'Discharged to a Medicaid nursing facility.'
            WHEN 27 THEN 'Discharged to a federal facility.'
            WHEN 28 THEN 'Discharged to a psychiatric hospital.'
            WHEN 29 THEN 'Discharged to a critical access hospital.'
            WHEN 30 THEN 'Discharged to another health care institution.'
            ELSE 'Disposition not recorded.'
        END AS disposition
    FROM padded AS d
    LEFT JOIN titles AS t1 ON t1.code = left(d.code_1, 3)
    LEFT JOIN titles AS t2 ON t2.code = left(d.code_2, 3)
    LEFT JOIN titles AS t3 ON t3.code = left(d.code_3, 3)
), written AS (
    SELECT
        p.encounter_id || '-admission' AS note_id, p.encounter_id, p.patient_nbr, p.medical_specialty,
        'H&P' AS note_type,
        'Admission note. ' || p.admission || p.specialty || p.registration || p.earlier_care AS text
    FROM parts AS p
    UNION ALL
    SELECT
        p.encounter_id || '-discharge' AS note_id, p.encounter_id, p.patient_nbr, p.medical_specialty,
        'discharge summary' AS note_type,
        'Discharge summary. ' || p.disposition || ' ' || p.diagnoses || p.earlier_care || p.admission || p.course
            || p.medication || p.results || p.specialty || p.registration AS text
    FROM parts AS p
)
SELECT
    w.note_id AS note_id,
    w.patient_nbr AS patient_id,
    w.encounter_id AS encounter_id,
    'hospital' AS category,
    w.note_type AS note_type,
    NULL AS author_role,
    NULL AS written_time,
    NULL AS signed_time,
    nullif(w.medical_specialty, '?') AS department,
    trim(w.text) AS text
FROM written AS w
